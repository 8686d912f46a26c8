"""A DatasetRun as the API server has it, turned into what `decide` takes. It is not trusted: the
schema there may be older or newer than this program."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from hdgan.controller.allowance import refused
from hdgan.controller.facts import parse_time
from hdgan.controller.settings import Settings
from hdgan.controller.situation import RunFacts
from hdgan.controller.status import RunStatus
from hdgan.controller.wanted import parts_of, scratch_of
from hdgan.core.errors import HdganError
from hdgan.core.run import DatasetRun, parse_run, resolve

PARTS_STAGES = ("tiler", "dataset")


def run_facts(document: dict[str, Any], settings: Settings) -> RunFacts:
    """Everything about a run that is in its object."""
    meta = document["metadata"]
    run: DatasetRun | None = None
    invalid = ""
    store = ""
    try:
        run = read_run(document)
        problem = refused(run, settings, meta["namespace"])
        store = settings.store(meta["namespace"], run.spec.resources.store).uri.rstrip("/")
        if problem is not None:
            run, invalid = None, problem
    except HdganError as error:
        run, invalid = None, str(error)
    status, unreadable = RunStatus(), ""
    try:
        status = RunStatus.model_validate(document.get("status") or {})
    except ValidationError as error:
        unreadable = "; ".join(str(error).splitlines()[:3])
    return RunFacts(
        name=meta["name"],
        namespace=meta["namespace"],
        uid=meta["uid"],
        generation=int(meta.get("generation") or 1),
        status=status,
        unreadable=unreadable,
        run=run,
        invalid=invalid,
        created=parse_time(meta.get("creationTimestamp")),
        deleting=meta.get("deletionTimestamp") is not None,
        store=store,
        store_name=store_name(document),
        reports="desk" in settings.images,
        scratch_is_claim=run is not None and scratch_of(run, settings).claim is not None,
        parts={}
        if run is None
        else {stage: parts_of(run, stage, settings) for stage in PARTS_STAGES},
    )


def store_name(document: dict[str, Any]) -> str | None:
    """Name of the store a run says, as far as that is to be seen."""
    spec = document.get("spec")
    resources = spec.get("resources") if isinstance(spec, dict) else None
    name = resources.get("store") if isinstance(resources, dict) else None
    return name if isinstance(name, str) else None


def read_run(document: dict[str, Any]) -> DatasetRun:
    """The run, resolved. RequestError says what is wrong with it."""
    return resolve(
        parse_run(
            {
                "apiVersion": document.get("apiVersion"),
                "kind": document.get("kind"),
                "metadata": {"name": document["metadata"]["name"]},
                "spec": document.get("spec"),
            },
            f"DatasetRun {document['metadata']['name']}",
        )
    )


def read_status(document: dict[str, Any]) -> RunStatus:
    """The status; a fresh one where there is none that can be understood."""
    try:
        return RunStatus.model_validate(document.get("status") or {})
    except ValidationError:
        return RunStatus()
