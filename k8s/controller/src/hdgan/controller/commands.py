"""`hdgan submit`, `logs` and `cancel`, and `hdgan status` against a cluster."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from hdgan.core.errors import InputMissing, RequestError
from hdgan.core.run import load_run
from hdgan.core.run_file import parse_document

FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="The run file (YAML or JSON).")]
NamespaceOption = Annotated[
    str | None,
    typer.Option("--namespace", "-n", help="Default: that of the kubeconfig's context."),
]
ContextOption = Annotated[str | None, typer.Option(help="A context of the kubeconfig.")]
KubeconfigOption = Annotated[
    str | None, typer.Option(envvar="KUBECONFIG", help="Default: ~/.kube/config.")
]

# The client takes a second to import: only what needs a cluster does.


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

    Given again, it changes what may change: resources, suspend and retry.
    """
    from hdgan.controller import api as paths

    name = load_run(file).metadata.name
    document: Any = parse_document(file)
    _refuse_local(document)
    api, space = _connect(namespace, context, kubeconfig)
    document["metadata"]["namespace"] = space
    if api.create(paths.RUNS, space, document) is not None:
        typer.echo(f"{name}: submitted to namespace {space}")
        return
    known = api.get(paths.RUNS, space, name)
    if known is not None and known.get("spec") == document["spec"]:
        typer.echo(f"{name}: is there already, and the same")
        return
    mutable = {key: document["spec"].get(key) for key in ("resources", "suspend", "retry")}
    rest = {key: value for key, value in document["spec"].items() if key not in mutable}
    # Fields that may not change go along, so that the server says so where they differ.
    api.patch(paths.RUNS, space, name, {"spec": {**rest, **mutable}})
    typer.echo(f"{name}: changed")


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
    for condition in status.conditions:
        if condition.status == "False":
            typer.echo(f"  {condition.type}: {condition.reason}")
    if status.message:
        typer.echo(status.message)
    if status.dataset:
        typer.echo(f"dataset: {status.dataset}")


def logs(
    file: FileArgument,
    stage: Annotated[
        str | None, typer.Option(help="Default: the one at work, or the last.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Until the pod ends.")] = False,
    namespace: NamespaceOption = None,
    context: ContextOption = None,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Print what the pods of a stage say: with --follow also what they will say."""
    from hdgan.controller import api as paths
    from hdgan.controller.pod_logs import print_logs, sources
    from hdgan.controller.reading import read_status

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
        say=typer.echo,
        warn=lambda text: typer.echo(text, err=True),
    )


def cancel(
    file: FileArgument,
    wait: Annotated[bool, typer.Option(help="Wait until its Jobs are gone.")] = True,
    namespace: NamespaceOption = None,
    context: ContextOption = None,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """End a run on a cluster and remove it. Artifacts and saved work stay in the store: the same
    file submitted again goes on from them."""
    from hdgan.controller import api as paths

    api, space = _connect(namespace, context, kubeconfig)
    name = load_run(file).metadata.name
    known = api.get(paths.RUNS, space, name)
    if known is None:
        raise InputMissing(f"namespace {space} has no DatasetRun {name}")
    api.delete(paths.RUNS, space, name, uid=known["metadata"]["uid"], propagation="Foreground")
    while wait and (left := api.get(paths.RUNS, space, name)) is not None:
        if left["metadata"]["uid"] != known["metadata"]["uid"]:
            break
        time.sleep(1.0)
    typer.echo(f"{name}: cancelled; its artifacts and saved work are kept")


def _connect(namespace: str | None, context: str | None, kubeconfig: str | None) -> tuple[Any, str]:
    from hdgan.controller.api import Api
    from hdgan.controller.connecting import connect, own_namespace

    space = namespace or own_namespace(kubeconfig, context)
    return Api(connect(kubeconfig, context)), space
