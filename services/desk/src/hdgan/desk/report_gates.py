"""Gates and verdict in the report: what was measured against which limit, and what became of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from hdgan.core.artifact import Artifact
from hdgan.core.gate_measures import measure
from hdgan.core.gates import GateVerdict, Measured
from hdgan.core.observe import reference
from hdgan.core.pipeline import External, Observed, gate_verdicts
from hdgan.core.releases import latest_name, release_of
from hdgan.core.run import DatasetRun
from hdgan.core.sections import GatesConfig
from hdgan.core.store import Store
from hdgan.desk.report_text import NOTHING

_WORDS = {True: "passed", False: "failed", None: "not decided"}
_ANY_TIME = datetime.min.replace(tzinfo=UTC)
"""When a release was made is in its file, not in its name."""
_KINDS = {True: "good", False: "bad", None: "waiting"}


@dataclass(frozen=True)
class GateRow:
    """A gate that is set."""

    name: str
    measured: str
    bound: str
    verdict: str
    kind: str
    sentence: str


def decided(store: Store, run: DatasetRun, artifacts: Mapping[str, Artifact]) -> list[GateVerdict]:
    """What every gate that is set has decided on what exists now."""
    found = {name: reference(one) for name, one in artifacts.items()}
    measured = measure(store, run, found, Measured())
    return gate_verdicts(run, Observed(found, measured=measured))


def gate_rows(verdicts: Sequence[GateVerdict]) -> list[GateRow]:
    """Gates as text."""
    return [
        GateRow(
            name=one.name,
            measured=NOTHING if one.measured is None else f"{one.measured:.6g}",
            bound=f"{'at most' if one.name.startswith('max') else 'at least'} {one.limit:g}",
            verdict=_WORDS[one.passed],
            kind=_KINDS[one.passed],
            sentence=one.sentence,
        )
        for one in verdicts
    ]


def unset(gates: GatesConfig) -> list[str]:
    """Names of the gates that are not set."""
    return [
        field.alias or name
        for name, field in GatesConfig.model_fields.items()
        if getattr(gates, name) in (None, {})
    ]


@dataclass(frozen=True)
class Standing:
    """What became of the dataset."""

    dataset: str
    """Name under which releases are made."""
    release: str
    """Of this run; empty if there is none."""
    latest: str
    """Name of the latest release; empty if there is none."""

    @property
    def words(self) -> str:
        """How the two relate."""
        if self.release and self.release == self.latest:
            return f"Released as {self.release}, which is the latest release of {self.dataset}."
        if self.release:
            return (
                f"Released as {self.release}. The latest release of {self.dataset} is "
                f"{self.latest or 'none'}: this one was replaced or rolled back."
            )
        if self.latest:
            return f"Not released. The latest release of {self.dataset} is {self.latest}."
        return f"Not released. {self.dataset} has no release yet."


def standing(
    store: Store,
    run: DatasetRun,
    external: External,
    artifacts: Mapping[str, Artifact],
    outcome: str,
) -> Standing:
    """Which release the run's dataset is in, and which is the latest."""
    latest = latest_name(store, run.dataset_name) or ""
    name = ""
    if outcome == "Released" and "dataset" in artifacts:
        observed = Observed({n: reference(one) for n, one in artifacts.items()})
        name = release_of(run, external, observed, _ANY_TIME).name
    elif outcome == "Unchanged":
        name = latest
    return Standing(run.dataset_name, name, latest)


def gates_section(
    store: Store,
    run: DatasetRun,
    external: External,
    artifacts: Mapping[str, Artifact],
    outcome: str,
) -> dict[str, Any]:
    """What the page shows of gates and releases."""
    verdicts = decided(store, run, artifacts)
    stands = standing(store, run, external, artifacts, outcome)
    return {
        "rows": gate_rows(verdicts),
        "unset": unset(run.spec.gates),
        "failed": [one.name for one in verdicts if one.passed is False],
        "open": [one.name for one in verdicts if one.passed is None],
        "outcome": outcome,
        "standing": stands,
        "is_latest": bool(stands.release) and stands.release == stands.latest,
    }
