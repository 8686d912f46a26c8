"""What to do about the definition of DatasetRuns, which the whole cluster has in common: a pure
function of what is there."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

NAME = "datasetruns.hdgan.io"


class InTheWay(Exception):
    """The cluster's definition is another one, and is not for this test to change."""


@dataclass(frozen=True)
class Handling:
    """What is done, and the sentence that says so."""

    do: Literal["install", "use", "update"]
    why: str


def handle(
    found: Mapping[str, Any] | None,
    ours: Mapping[str, Any],
    namespaces: Collection[str],
    may_update: bool,
) -> Handling:
    """found: the cluster's definition; ours: this repository's; namespaces: those with runs.

    InTheWay where runs of others would be judged by another definition than before, unless
    `may_update`.
    """
    if found is None:
        return Handling("install", "the cluster has none: the chart installs it")
    if same(found, ours):
        return Handling("use", "the cluster's is the same: it is used and left as it is")
    if namespaces and not may_update:
        raise InTheWay(
            f"the cluster has another definition of DatasetRuns than this repository, and runs in "
            f"{', '.join(sorted(namespaces))}. UPDATE_CRD=1 replaces it all the same, as "
            "kubectl apply -f k8s/crd would"
        )
    return Handling("update", "the cluster's is another one: it is replaced, and stays so")


def same(found: Mapping[str, Any], ours: Mapping[str, Any]) -> bool:
    """Whether two definitions say the same, but for what the server adds."""
    return bool(_restrict(found["spec"], ours["spec"]) == ours["spec"])


def _restrict(found: Any, like: Any) -> Any:
    """`found` without fields the server gives defaults: those of the top two levels alone, so that
    nothing of a schema is overlooked."""
    if not isinstance(found, Mapping) or not isinstance(like, Mapping):
        return found
    kept = {name: found[name] for name in found if name in like}
    if isinstance(kept.get("names"), Mapping):
        names = like["names"]
        kept["names"] = {name: kept["names"][name] for name in kept["names"] if name in names}
    return kept
