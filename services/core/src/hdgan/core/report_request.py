"""What the report of a run is made of, and the request that has it made: pure functions, for the
local runner and the controller alike."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, JsonValue
from pydantic.alias_generators import to_camel

from hdgan.core.canonical import canonical_digest
from hdgan.core.pipeline import External, Observed, frozen_run
from hdgan.core.redaction import redact
from hdgan.core.request import StageRequest
from hdgan.core.run import DatasetRun

STAGE: Final = "report"
SERVICE: Final = "desk"
VERSION: Final = 1
"""Of the request. It is not among the stages' versions: those are in every run's digest."""
MAX_MESSAGE: Final = 8000
"""Characters of what the runner said that a report is told."""


class ReportConfig(BaseModel):
    """What a report is told besides what is in the store."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, alias_generator=to_camel, populate_by_name=True
    )

    run: dict[str, JsonValue]
    """The resolved run, as in its file."""
    external: External
    """What it was pinned to: slides may have come since."""
    outcome: str
    """As `hdgan status` names it."""
    message: str = ""
    """What the runner said of that outcome."""
    release: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,80}$")] | None = None
    """The release that was made. None: none was."""


def report_request(
    run: DatasetRun,
    external: External,
    observed: Observed,
    outcome: str,
    message: str,
    *,
    release: str | None = None,
    store: str,
    scratch: str,
) -> StageRequest:
    """What the desk is started with to write the report of a resolved run.

    Its key is a digest of what the report shows: of equal keys the second has nothing to do.
    What else a report says follows from that, but for the release it is compared with where the
    run has none: that one may be another by then, which makes no report out of date.

    message  of what ended the run; what looks like a secret is taken out
    release  the release this run has made, if it has
    """
    said = redact(message)[:MAX_MESSAGE]
    artifacts = {name: one.content_digest for name, one in observed.artifacts.items()}
    shows = {
        "version": VERSION,
        "run": frozen_run(run, external)[0],
        "artifacts": artifacts,
        "outcome": outcome,
        "message": said,
        "release": release,
    }
    config = ReportConfig(
        run=run.model_dump(mode="json", by_alias=True),
        external=external,
        outcome=outcome,
        message=said,
        release=release,
    )
    return StageRequest(
        run=run.metadata.name,
        stage=STAGE,
        service=SERVICE,
        config=config.model_dump(mode="json", by_alias=True),
        key=canonical_digest(shows),
        stage_version=VERSION,
        store=store,
        scratch=scratch,
        device="cpu",
        threads=run.spec.resources.threads,
    )
