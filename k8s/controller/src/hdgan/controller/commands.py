"""`hdgan submit`, `logs` and `cancel`, and `hdgan status` against a cluster."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hdgan.core.errors import HdganError, InputMissing, RequestError
from hdgan.core.printable import printable
from hdgan.core.run import load_run
from hdgan.core.run_file import parse_document

if TYPE_CHECKING:
    from hdgan.controller.remains import Remains

FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="The run file (YAML or JSON).")]
NamespaceOption = Annotated[
    str | None,
    typer.Option("--namespace", "-n", help="Default: that of the kubeconfig's context."),
]
ContextOption = Annotated[str | None, typer.Option(help="A context of the kubeconfig.")]
KubeconfigOption = Annotated[
    str | None, typer.Option(envvar="KUBECONFIG", help="Default: ~/.kube/config.")
]

ATTEMPTS = 10
"""At changing a run that others change, too."""
SPARE_SECONDS = 60.0
"""For the cluster to remove what has ended, beyond the time pods get to save their state."""

# The client takes a second to import: only what needs a cluster does.


class StillEnding(HdganError):
    """What a run had at work has been told to end, and has not."""

    exit_code = 75


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(submit)
    app.command()(logs)
    app.command()(cancel)


def submit(
    file: FileArgument,
    namespace: NamespaceOption = None,
    context: ContextOption = None,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Give a run to a cluster: the same file as for `hdgan run`.

    Given again, the file replaces what the run was told: resources, gates, suspend and retry may
    change, and what is no longer in the file has its default again.
    """
    from hdgan.controller import api as paths

    name = load_run(file).metadata.name
    document: Any = parse_document(file)
    _refuse_local(document)
    api, space = _connect(namespace, context, kubeconfig)
    document["metadata"]["namespace"] = space
    for _ in range(ATTEMPTS):
        if api.create(paths.RUNS, space, document) is not None:
            typer.echo(f"{name}: submitted to namespace {space}")
            return
        known = api.get(paths.RUNS, space, name)
        if known is None or known["metadata"].get("deletionTimestamp"):
            time.sleep(0.5)  # it is being deleted, and can be made anew soon
            continue
        if known.get("spec") == document["spec"]:
            # Not left to the server, for whom 1.0 is a change where it has stored 1.
            typer.echo(f"{name}: is there already, and the same")
            return
        try:
            # Whole, and of the version that was read: the server's own rules then see each field
            # that has gone, and refuse what may not change.
            new = api.replace(paths.RUNS, space, {**known, "spec": document["spec"]})
        except (paths.Conflict, paths.NotFound):
            continue  # it has changed meanwhile: once more with what it is now
        if new["metadata"].get("generation") == known["metadata"].get("generation"):
            typer.echo(f"{name}: is there already, and the same")
        else:
            typer.echo(f"{name}: changed")
        return
    raise paths.ApiError(
        f"{name} was changed or deleted by somebody else {ATTEMPTS} times while it was submitted: "
        "look who does that, and submit it again"
    )


def _refuse_local(document: Any) -> None:
    """What lies on this machine is out of a cluster's reach."""
    spec = document["spec"]
    places = {
        "spec.slides.uri": spec["slides"].get("uri"),
        "spec.slides.metadata": spec["slides"].get("metadata"),
        "spec.slides.outlines": spec["slides"].get("outlines"),
        "spec.ganTrainer.initFrom": (spec.get("ganTrainer") or {}).get("initFrom"),
    }
    for path, uri in places.items():
        if uri is not None and not str(uri).startswith("s3://"):
            raise RequestError(
                f"{path}: {uri} is on this machine; a cluster reads s3://bucket/prefix. Upload it "
                "and name it so"
            )


def cluster_status(
    file: Path, namespace: str | None, context: str | None, kubeconfig: str | None, as_json: bool
) -> None:
    """What `hdgan status --namespace` prints."""
    from hdgan.controller import api as paths
    from hdgan.controller.reading import read_status

    api, space = _connect(namespace, context, kubeconfig)
    name = load_run(file).metadata.name
    document = api.get(paths.RUNS, space, name)
    if document is None:
        raise InputMissing(f"namespace {space} has no DatasetRun {name}: hdgan submit {file}")
    if as_json:
        typer.echo(json.dumps({"run": name, "status": document.get("status") or {}}, indent=1))
        return
    status = read_status(document)
    progress = f", {status.progress}" if status.progress else ""
    stage = f" ({status.stage}{progress})" if status.stage else ""
    typer.echo(f"{name}: {status.phase}{stage}")
    for one in status.stages:
        attempt = f"attempt {one.attempt}" if one.attempt > 1 else ""
        typer.echo(f"  {one.name:<12} {one.state:<9} {(one.key or '')[:12]:<12} {attempt}".rstrip())
    for gate in status.gates:
        typer.echo(printable(f"  {gate.line}"))
    for condition in status.conditions:
        if condition.status == "False":
            typer.echo(f"  {condition.type}: {condition.reason}")
    if status.message:
        typer.echo(printable(status.message))
    if status.drift_kid is not None:
        typer.echo(f"drift of the tiles from the generator: KID {status.drift_kid:.4f}")
    if status.dataset:
        typer.echo(f"dataset: {status.dataset}")
    if status.report:
        typer.echo(f"report: {status.report}")


def logs(
    file: FileArgument,
    stage: Annotated[
        str | None, typer.Option(help="Default: the one at work, or the last.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Until the pod ends.")] = False,
    raw: Annotated[bool, typer.Option("--raw", help="JSON lines on a terminal, too.")] = False,
    namespace: NamespaceOption = None,
    context: ContextOption = None,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Print what the pods of a stage say: with --follow also what they will say. On a terminal as
    text, elsewhere as they say it: JSON lines."""
    from hdgan.controller import api as paths
    from hdgan.controller.pod_logs import print_logs, sources
    from hdgan.controller.reading import read_status
    from hdgan.core.log_lines import readable

    api, space = _connect(namespace, context, kubeconfig)
    name = load_run(file).metadata.name
    document = api.get(paths.RUNS, space, name)
    if document is None:
        raise InputMissing(f"namespace {space} has no DatasetRun {name}: hdgan submit {file}")
    stages = [one for one in read_status(document).stages if one.job is not None]
    chosen = [one for one in stages if one.name == stage] if stage else stages
    if not chosen:
        have = ", ".join(one.name for one in stages) or "none"
        raise InputMissing(f"{name} has no Job of {stage or 'any stage'}; there are: {have}")
    job = next((one for one in chosen if not one.over), chosen[-1]).job
    selector = f"batch.kubernetes.io/job-name={job}"
    pods = api.list(paths.PODS, space, labelSelector=selector).items
    if not pods:
        raise InputMissing(f"the pods of Job {job} are gone, and their logs with them")
    print_logs(
        api,
        space,
        sources(pods),
        follow=follow,
        read=readable if sys.stdout.isatty() and not raw else printable,
        say=typer.echo,
        warn=lambda text: typer.echo(printable(text), err=True),
    )


def cancel(
    file: FileArgument,
    wait: Annotated[bool, typer.Option(help="Wait until its Jobs and pods are gone.")] = True,
    timeout: Annotated[
        float | None,
        typer.Option(
            min=0, help="Longest wait in seconds. Default: the pods' grace and a minute more."
        ),
    ] = None,
    namespace: NamespaceOption = None,
    context: ContextOption = None,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """End a run on a cluster and remove it. Artifacts and saved work stay in the store: the same
    file submitted again goes on from them. Jobs that other runs need as well stay."""
    from hdgan.controller import api as paths
    from hdgan.controller.remains import Remains

    api, space = _connect(namespace, context, kubeconfig)
    name = load_run(file).metadata.name
    known = api.get(paths.RUNS, space, name)
    if known is None:
        raise InputMissing(f"namespace {space} has no DatasetRun {name}")
    remains = Remains(api, space, known)
    remains.look()  # before: once the run has gone, nothing tells which Jobs were its own
    api.delete(paths.RUNS, space, name, uid=known["metadata"]["uid"], propagation="Foreground")
    if wait:
        _wait_until_gone(name, remains, timeout)
    typer.echo(f"{name}: cancelled; its artifacts and saved work are kept")


def _wait_until_gone(name: str, remains: Remains, timeout: float | None) -> None:
    """StillEnding when that takes longer than it should."""
    begun = time.monotonic()
    said = ""
    while left := remains.look():
        longest = remains.grace_seconds + SPARE_SECONDS if timeout is None else timeout
        waited = time.monotonic() - begun
        if waited >= longest:
            raise StillEnding(
                f"{name} is deleted, but {waited:.0f} s later these are still there: {left}. They "
                "go when their pods have ended, and what they saved is kept. "
                f"{remains.advice()}"
            )
        if left != said:
            typer.echo(f"{name}: waiting at most {longest - waited:.0f} s for {left}", err=True)
            said = left
        time.sleep(0.5)


def _connect(namespace: str | None, context: str | None, kubeconfig: str | None) -> tuple[Any, str]:
    from hdgan.controller.api import Api
    from hdgan.controller.connecting import connect, own_namespace

    space = namespace or own_namespace(kubeconfig, context)
    return Api(connect(kubeconfig, context)), space
