"""The `hdgan` command. Other rooms add subcommands through the entry point group
`hdgan.commands`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from hdgan.core import releases_commands
from hdgan.core.atomic_file import explain_os_error, is_full
from hdgan.core.errors import HdganError, RequestError
from hdgan.core.garbage.command import gc
from hdgan.core.printable import printable
from hdgan.core.process_end import end_process
from hdgan.core.redaction import guard_streams
from hdgan.core.uris import is_path

if TYPE_CHECKING:
    from hdgan.core.local import RunResult
    from hdgan.core.run import DatasetRun
    from hdgan.core.telemetry.run_watch import RunWatch

# Imports of what only one command needs are inside it: `hdgan run` with nothing left to do, and
# `hdgan --help`, should answer at once.

COMMANDS = "hdgan.commands"
CLUSTER_STATUS = "hdgan.cluster_status"

app = typer.Typer(
    name="hdgan",
    help="From unlabelled slides to labelled synthetic histology images.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
dataset_app = typer.Typer(
    help="Look at datasets, or turn them into plain folders.", no_args_is_help=True
)
app.add_typer(dataset_app, name="dataset")
app.add_typer(releases_commands.app, name="releases")
app.command()(gc)

RunFile = Annotated[Path, typer.Argument(metavar="FILE", help="The run file (YAML or JSON).")]
StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store",
        envvar="HDGAN_STORE",
        metavar="URI",
        help="Where artifacts are kept: a folder or s3://bucket/prefix. "
        "Default: `store` beside the run file.",
    ),
]
ScratchOption = Annotated[
    Path | None,
    typer.Option(
        "--scratch",
        envvar="HDGAN_SCRATCH",
        metavar="DIR",
        help="Folder on a fast local disk. Default: `scratch` beside the run file.",
    ),
]


def store_for(file: Path, store: str | None) -> str:
    """URI of the store for a run file: the one named, or the folder `store` beside the file."""
    if store is None:
        return (file.absolute().parent / "store").as_uri()
    return Path(store).absolute().as_uri() if is_path(store) else store


def scratch_for(file: Path, scratch: Path | None) -> Path:
    """The scratch folder for a run file: the one named, or `scratch` beside the file."""
    return (scratch or file.parent / "scratch").absolute()


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"hdgan {version('hdgan-core')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print it, and end."
        ),
    ] = False,
) -> None:
    """From unlabelled slides to labelled synthetic histology images."""


@app.command()
def run(
    file: RunFile,
    store: StoreOption = None,
    scratch: ScratchOption = None,
    dataset: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder to put the finished dataset into."),
    ] = None,
    report: Annotated[
        bool, typer.Option(help="Write the run's report into the store when it ends.")
    ] = True,
    metrics_port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            metavar="PORT",
            help="Serve /metrics for Prometheus on this port of 127.0.0.1 (HDGAN_METRICS_HOST: of "
            "another address) while the run is at work. 0 takes a free one.",
        ),
    ] = None,
) -> None:
    """Run a pipeline on this machine: everything that is not there yet.

    Ctrl-C stops it; the same command resumes. Exit code 3: waiting for annotations. 4: a gate said
    no. 64 to 75: a stage failed. 130: stopped.
    """
    from hdgan.core.local import run_local
    from hdgan.core.progress_view import open_view
    from hdgan.core.run import load_run

    document = load_run(file)
    store_uri = store_for(file, store)
    view = open_view(sys.stdout)
    with _metrics(metrics_port) as watch:
        try:
            result = run_local(
                document,
                store_uri=store_uri,
                scratch=scratch_for(file, scratch),
                view=view,
                watch=watch,
            )
        finally:
            view.close()
        _tell_result(file, store, store_uri, dataset, document, result)
        if report:
            _write_report(document, result, store_uri, scratch_for(file, scratch))
    raise typer.Exit(result.exit_code)


@contextmanager
def _metrics(port: int | None) -> Iterator[RunWatch | None]:
    """Serves metrics within, where a port is given; at the end waits for whoever reads them."""
    if port is None:
        yield None
        return
    from hdgan.core.stage import HOST_VARIABLE
    from hdgan.core.telemetry.local_metrics import OWN_HOST, LocalMetrics

    with LocalMetrics(os.environ.get(HOST_VARIABLE) or OWN_HOST, port) as metrics:
        typer.echo(f"metrics: {metrics.url}")
        try:
            yield metrics
        finally:
            with suppress(KeyboardInterrupt):
                metrics.wait_for_last_look(typer.echo)


def _tell_result(
    file: Path,
    store: str | None,
    store_uri: str,
    dataset: Path | None,
    document: DatasetRun,
    result: RunResult,
) -> None:
    """Say how the run has ended, and what to do next."""
    if result.outcome in ("Released", "Unchanged"):
        _report_dataset(store_uri, result, dataset)
        known = "unchanged, as in release" if result.outcome == "Unchanged" else "release"
        typer.echo(f"{known} {result.message} of {document.dataset_name}")
        if result.observed.drift_kid is not None:
            typer.echo(
                f"drift of the tiles from its generator: KID {result.observed.drift_kid:.4f}"
            )
    elif result.outcome == "AwaitingAnnotation":
        _report_awaiting(file, store, store_uri, document, result)
    else:
        typer.echo(printable(result.message), err=True)
        if result.outcome == "GateFailed":
            typer.echo(
                "What to do: look at `hdgan status`; mend what the gates are about, or correct "
                "spec.gates, then run the same command again. What exists is kept.",
                err=True,
            )


def _write_report(document: DatasetRun, result: RunResult, store_uri: str, scratch: Path) -> None:
    """Have it written and say where it is; whatever comes of it, the run has ended as it has."""
    from hdgan.core.local_report import write_report
    from hdgan.core.run import resolve

    written = write_report(resolve(document), result, store_uri=store_uri, scratch=scratch)
    if written is None:
        return
    if written.uri is None:
        warning = f"hdgan: the report could not be written: {written.problem}"
        typer.echo(printable(" ".join(warning.split())), err=True)
    else:
        typer.echo(f"report: {written.uri}")


def _report_dataset(store_uri: str, result: RunResult, folder: Path | None) -> None:
    from hdgan.core.artifact import open_artifact
    from hdgan.core.errors import InternalError
    from hdgan.core.store import open_store

    reference = result.artifact("dataset")
    if reference is None:
        raise InternalError("the run is done but there is no dataset")
    if folder is None:
        typer.echo(f"dataset: {store_uri.rstrip('/')}/artifacts/dataset/{reference.key}")
        return
    from hdgan.core.materialise import materialise

    artifact = open_artifact(open_store(store_uri), "dataset", reference.key)
    if artifact is None:
        raise InternalError(f"the dataset artifact {reference.key} has gone")
    done = materialise(artifact, folder)
    words = [f"{done.written} files written", f"{done.kept} were there already"]
    if done.removed:
        words.append(f"{done.removed} of an older dataset removed")
    typer.echo(f"dataset: {folder} ({', '.join(words)})")


def _report_awaiting(
    file: Path, store: str | None, store_uri: str, document: DatasetRun, result: RunResult
) -> None:
    reference = result.artifact("candidates")
    key = reference.key if reference else "?"
    suffix = f" --store {store}" if store else ""
    asked = document.spec.annotations
    typer.echo(
        f"Waiting for annotations: {result.message}.\n"
        f"The candidates: {store_uri.rstrip('/')}/artifacts/candidates/{key}\n"
        f"Label {asked.train} + {asked.val} + {asked.test} of them (train + val + test), then:\n"
        f"  hdgan annotations export {file} DIR{suffix}\n"
        f"  hdgan annotations import {file} DIR{suffix}\n"
        f"  hdgan run {file}{suffix}"
    )


@app.command()
def status(
    file: RunFile,
    store: StoreOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    namespace: Annotated[
        str | None,
        typer.Option("--namespace", "-n", help="Ask a cluster: the run in this namespace."),
    ] = None,
    context: Annotated[str | None, typer.Option(help="A context of the kubeconfig.")] = None,
    kubeconfig: Annotated[
        str | None, typer.Option(envvar="KUBECONFIG", help="Default: ~/.kube/config.")
    ] = None,
) -> None:
    """Show where a run stands: what exists in the store, and what the last runner said; with
    --namespace or --context, what a cluster says."""
    if namespace is not None or context is not None:
        _cluster_status()(file, namespace, context, kubeconfig, as_json)
        return
    from hdgan.core.observe import observe, pin_external
    from hdgan.core.outcome import find_outcome
    from hdgan.core.pipeline import gate_verdicts, plan
    from hdgan.core.report_place import report_place
    from hdgan.core.run import load_run, resolve
    from hdgan.core.status_file import begun_with, read_status
    from hdgan.core.store import open_store

    document = resolve(load_run(file))
    place = open_store(store_for(file, store))
    begun = begun_with(place, document, ended=True)
    external = pin_external(place, document, save=False, release_name=begun)
    observed = observe(place, document, external)
    statuses = plan(document, external, observed)
    gates = gate_verdicts(document, observed)
    last = read_status(place, document)
    outcome = find_outcome(place, document, external, observed, last)
    written = report_place(document.metadata.name)
    report = None if place.head(written) is None else place.url(written)
    if as_json:
        nodes = [
            {
                "name": s.name,
                "state": s.state,
                "key": s.key,
                "contentDigest": s.content_digest,
                "reason": s.reason,
            }
            for s in statuses
        ]
        typer.echo(
            json.dumps(
                {
                    "run": document.metadata.name,
                    "outcome": outcome,
                    "nodes": nodes,
                    "gates": [one.model_dump(mode="json", by_alias=True) for one in gates],
                    "report": report,
                    "last": last,
                },
                indent=1,
            )
        )
        return
    typer.echo(f"{document.metadata.name}: {outcome}")
    for s in statuses:
        key = (s.key or "")[:12]
        typer.echo(printable(f"  {s.name:<12} {s.state:<9} {key:<12} {s.reason}".rstrip()))
    for one in gates:
        typer.echo(printable(f"  {one.line}"))
    if last.get("message") and outcome == last.get("outcome"):
        typer.echo(printable(str(last["message"])))
    if report is not None:
        typer.echo(f"report: {report}")


def _cluster_status() -> Callable[..., None]:
    """What the room that knows clusters prints. RequestError where it is not installed."""
    for point in entry_points(group=CLUSTER_STATUS):
        command: Callable[..., None] = point.load()
        return command
    raise RequestError("clusters are not known here: install hdgan-controller")


@dataset_app.command("check")
def dataset_check(
    uri: Annotated[str, typer.Argument(metavar="URI", help="Folder, s3:// prefix, or artifact.")],
    min_pairs: Annotated[
        int, typer.Option(min=0, help="Least number of pairs the dataset must hold.")
    ] = 1,
) -> None:
    """Read a whole dataset and verify it: pairs, sizes, masks, palettes, index, digests."""
    from hdgan.core.dataset import check_dataset

    summary = check_dataset(uri, min_pairs=min_pairs)
    sizes = ", ".join(f"{width} x {height}" for width, height in summary.sizes)
    typer.echo(
        f"{uri}: {summary.pairs} pairs in {summary.shards} shards, {sizes} pixels, all right"
    )
    for name, fraction in zip(summary.classes, summary.fractions, strict=True):
        typer.echo(printable(f"  {name:<20} {100 * fraction:5.1f} % of pixels"))


@dataset_app.command("export")
def dataset_export(
    uri: Annotated[str, typer.Argument(metavar="URI", help="Folder, s3:// prefix, or artifact.")],
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="New or empty, or an export that was stopped.")
    ],
) -> None:
    """Turn a dataset into plain folders: images, masks, uncertainty and metadata, each file
    verified and byte for byte as it is in its shard.

    Stopped at any moment, the same command writes what is missing.
    """
    from hdgan.core.dataset_export import export_dataset
    from hdgan.core.progress_view import open_view, watched

    with watched(open_view(sys.stdout), "export", "pairs") as progress:
        done = export_dataset(uri, folder, progress=progress)
    if done.written:
        words = f"{done.written} files written, {done.kept} were there already"
    else:
        words = "complete already; names and sizes of all files are right"
    typer.echo(f"{folder}: {done.pairs} pairs, {words}")


@app.command()
def schema() -> None:
    """Print the JSON schema of the run file, for editors."""
    from hdgan.core.schema import json_schema

    typer.echo(json.dumps(json_schema(), indent=2))


@app.command()
def doctor(
    store: Annotated[
        str | None,
        typer.Option("--store", envvar="HDGAN_STORE", metavar="URI", help="A store to try."),
    ] = None,
    scratch: Annotated[
        Path, typer.Option("--scratch", envvar="HDGAN_SCRATCH", metavar="DIR")
    ] = Path("."),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Look at this machine: processors, memory, torch, slides, disks, store. Exit 1 if something
    necessary is missing."""
    from hdgan.core import doctor as examination

    findings = examination.examine(scratch, store)
    if as_json:
        typer.echo(examination.as_json(findings))
    else:
        signs = {"ok": "ok", "warning": "note", "problem": "WRONG"}
        for finding in findings:
            typer.echo(f"{signs[finding.level]:<6} {finding.name:<14} {finding.found}")
            if finding.advice:
                typer.echo(f"{'':<21} -> {finding.advice}")
    raise typer.Exit(0 if examination.healthy(findings) else 1)


def load_commands(target: typer.Typer) -> None:
    """Let the installed rooms add their subcommands. A broken room is named and left out."""
    for point in sorted(entry_points(group=COMMANDS), key=lambda item: item.name):
        try:
            point.load()(target)
        except ImportError as error:
            typer.echo(f"hdgan: commands of {point.value} are not available: {error}", err=True)


def main() -> NoReturn:
    """Entry point of the command: errors we know end it with one message and their exit code."""
    guard_streams()
    code = 0
    try:
        load_commands(app)
        app()
    except HdganError as error:
        typer.echo(f"hdgan: {printable(str(error))}", err=True)
        code = error.exit_code
    except KeyboardInterrupt:
        typer.echo("hdgan: stopped", err=True)
        code = 130
    except BrokenPipeError:
        code = 141  # whoever read our output has enough
    except OSError as error:
        if not is_full(error):
            raise
        known = explain_os_error(error, "write", error.filename or "the output")
        typer.echo(f"hdgan: {printable(str(known))}", err=True)
        code = known.exit_code
    except SystemExit as end:
        code = _exit_code(end)
    end_process(code)


def _exit_code(end: SystemExit) -> int:
    """What the interpreter would make of it."""
    if end.code is None:
        return 0
    if isinstance(end.code, int):
        return end.code
    typer.echo(end.code, err=True)
    return 1


if __name__ == "__main__":
    main()
