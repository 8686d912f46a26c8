"""What a schedule's CronJob runs: `python -m hdgan.controller.submitter SCHEDULE`.

It makes a DatasetRun named after its own Job (so that a Job that is tried again makes no second
one) and deletes the schedule's runs that are superseded or older than its history.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hdgan.controller import api as paths
from hdgan.controller.api import Api, Document
from hdgan.controller.connecting import connect, own_namespace
from hdgan.controller.facts import parse_time
from hdgan.controller.reading import read_status
from hdgan.controller.scheduling import (
    SCHEDULE_LABEL,
    ScheduleConfig,
    ScheduledRun,
    document,
    turn,
)
from hdgan.core.errors import HdganError, InternalError, RequestError
from hdgan.core.redaction import guard_streams
from hdgan.core.run import parse_run
from hdgan.core.run_errors import explain
from hdgan.core.run_file import parse_document

NAME_VARIABLE = "HDGAN_RUN_NAME"
NAMESPACE_VARIABLE = "HDGAN_NAMESPACE"


def main(arguments: list[str] | None = None) -> int:
    """Make what is due; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m hdgan.controller.submitter", description=__doc__
    )
    parser.add_argument("schedule", type=Path, help="the schedule, a YAML file")
    parser.add_argument("--kubeconfig", help="default: the pod's own account, or KUBECONFIG")
    options = parser.parse_args(arguments)
    guard_streams()
    try:
        config = load_schedule(options.schedule)
        name = os.environ.get(NAME_VARIABLE, "")
        if not name:
            raise RequestError(f"{NAME_VARIABLE} is not set: it is the name of the run to make")
        namespace = os.environ.get(NAMESPACE_VARIABLE) or own_namespace(options.kubeconfig)
        print(submit(Api(connect(options.kubeconfig)), namespace, name, config), flush=True)
        return 0
    except HdganError as error:
        print(f"hdgan: {error}", file=sys.stderr, flush=True)
        return error.exit_code


def load_schedule(path: Path) -> ScheduleConfig:
    """Read the file (RequestError)."""
    try:
        return ScheduleConfig.model_validate(parse_document(path), by_alias=True, by_name=False)
    except ValidationError as error:
        raise RequestError(explain(error, ScheduleConfig, str(path))) from None


def submit(api: Api, namespace: str, name: str, config: ScheduleConfig) -> str:
    """Make the run that is due, if one is, and delete what is to go; returns what was done."""
    due = document(config, name)
    # Without its label: the model knows no labels.
    parse_run({**due, "metadata": {"name": name}}, f"schedule {config.schedule}")
    known = api.get(paths.RUNS, namespace, name)
    if known is not None:
        return f"{name} is there already"
    labelled = f"{SCHEDULE_LABEL}={config.schedule}"
    runs = [
        scheduled(one)
        for one in api.list(paths.RUNS, namespace, labelSelector=labelled).items
        if not one["metadata"].get("deletionTimestamp")
    ]
    now = turn(config, runs)
    said = [f"{name}: {now.why}" if now.create else now.why]
    if now.create:
        api.create(paths.RUNS, namespace, due)  # None: another pod of this Job was faster
    for run in now.delete:
        api.delete(paths.RUNS, namespace, run.name, uid=run.uid)
        said.append(f"{run.name} ({run.phase}) is deleted; its artifacts are kept")
    return "\n".join(said)


def scheduled(found: Document) -> ScheduledRun:
    """A run as the API server has it."""
    meta: dict[str, Any] = found["metadata"]
    created = parse_time(meta.get("creationTimestamp"))
    if created is None:
        raise InternalError(f"DatasetRun {meta['name']} has no creationTimestamp")
    status = read_status(found)
    return ScheduledRun(
        meta["name"],
        meta["uid"],
        created,
        status.phase,
        annotating=status.phase == "AwaitingAnnotation" and status.annotations_lack is not None,
    )


if __name__ == "__main__":
    sys.exit(main())
