"""The desk's subcommands of `hdgan`: annotations out and in, and the report.

Only typer and core at module level: the command line stays quick and pictures cost those who ask.
"""

from __future__ import annotations

import getpass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from hdgan.core.cli import StoreOption

RunFile = Annotated[Path, typer.Argument(metavar="RUNFILE", help="The run file.")]


def register(app: typer.Typer) -> None:
    """Add the desk's commands to the `hdgan` app."""
    annotations = typer.Typer(no_args_is_help=True, help="Candidates out, annotations back in.")
    annotations.command("export")(export_command)
    annotations.command("import")(import_command)
    annotations.command("list")(list_command)
    app.add_typer(annotations, name="annotations")
    app.command("report")(report_command)


def export_command(
    run_file: RunFile,
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder to write: new, empty or of an export.")
    ],
    store: StoreOption = None,
    count: Annotated[
        int | None,
        typer.Option(
            "--count",
            min=1,
            help="Candidates to export, the additional ones to train; default: what the run needs.",
        ),
    ] = None,
) -> None:
    """Write the candidates to label, a QuPath project of them, a contact sheet and a guide to DIR.

    Again into the same DIR: adds what is missing and leaves what a person has changed.
    """
    from hdgan.core.annotations import current
    from hdgan.desk.annotation_versions import fixed_splits
    from hdgan.desk.export import export_candidates, with_count
    from hdgan.desk.export_layout import CONTACT_SHEET, GUIDE_FILE, PROJECT_FILE
    from hdgan.desk.run_artifacts import open_run

    view = open_run(run_file, store)
    candidates = view.candidates()
    config = view.run.spec.annotations
    before = current(view.store, candidates.artifact.content_digest)
    fixed = fixed_splits(view.store, candidates.artifact.content_digest)
    assigned = candidates.assign(with_count(config, count), fixed)
    exported = export_candidates(
        candidates,
        assigned,
        config.classes,
        folder,
        run_name=view.run.metadata.name,
        mpp=view.run.spec.tiler.mpp,
        before=before,
    )
    typer.echo(f"{exported.count} candidates to label in {folder} (overview: {CONTACT_SHEET})")
    if exported.labelled:
        typer.echo(f"{exported.labelled} of them have labels already, as shapes and as masks")
    if exported.kept:
        typer.echo(f"changed by a person, left as they are: {', '.join(exported.kept)}")
    typer.echo(f"In QuPath: open {folder / PROJECT_FILE}. How: {folder / GUIDE_FILE}")
    typer.echo(f"Then: hdgan annotations import {run_file} {folder}")


def import_command(
    run_file: RunFile,
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH...", help="PNG, GeoJSON, COCO, CVAT, Label Studio; or folders."
        ),
    ],
    store: StoreOption = None,
    author: Annotated[
        str | None, typer.Option("--author", help="Who labelled; default: the user's login name.")
    ] = None,
    accept: Annotated[
        bool,
        typer.Option("--accept", help="Trust files that only their names match with a candidate."),
    ] = False,
    replace_all: Annotated[
        bool,
        typer.Option("--replace-all", help="Keep no image of the version before, but these alone."),
    ] = False,
    background: Annotated[
        str | None,
        typer.Option("--background", help="Class of unlabelled pixels; default: none (ignored)."),
    ] = None,
) -> None:
    """Check labels and publish them as a new version; nothing is imported if anything is wrong.

    Images of the version before that are not among these are kept.
    """
    from hdgan.core.printable import printable
    from hdgan.desk.intake import import_annotations
    from hdgan.desk.run_artifacts import open_run

    view = open_run(run_file, store)
    candidates = view.candidates()
    imported = import_annotations(
        view.store,
        candidates,
        view.run.spec.annotations,
        paths,
        background=background,
        accept=accept,
        replace_all=replace_all,
        run_info={
            "author": author or _login_name(),
            "date": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
            "run": view.run.metadata.name,
        },
    )
    for notice in imported.notices:
        typer.echo(printable(f"note: {notice}"))
    if not imported.changed:
        typer.echo(f"nothing new: version {imported.version} holds exactly these annotations")
        return
    kept = len(imported.images) - imported.new
    typer.echo(
        f"imported {imported.new} images as version {imported.version}"
        + (f", which keeps {kept} of before" if kept else "")
    )
    for index, entry in enumerate(view.run.spec.annotations.classes):
        pixels = sum(image.pixels[index] for image in imported.images)
        total = sum(sum(image.pixels) + image.unlabelled for image in imported.images)
        typer.echo(f"  {entry.name:<24} {100 * pixels / total:5.1f} % of pixels")
    typer.echo(f"Look at what was understood: {imported.artifact.uri('preview.png')}")
    typer.echo(f"Then: hdgan run {run_file}")


def list_command(run_file: RunFile, store: StoreOption = None) -> None:
    """List the versions of a run's annotations, the newest last."""
    from hdgan.core.printable import printable
    from hdgan.desk.annotation_versions import list_versions
    from hdgan.desk.run_artifacts import open_run

    view = open_run(run_file, store)
    versions = list_versions(view.store, view.candidates().artifact.content_digest)
    if not versions:
        typer.echo("no annotations yet: hdgan annotations import brings them in")
        return
    width = max(len(printable(one.author)) for one in versions)
    for one in versions:
        splits = ", ".join(f"{count} {split}" for split, count in one.splits.items())
        share = one.labelled_share
        labelled = "" if share is None else f", {100 * share:.1f} % labelled"
        author = printable(one.author).ljust(width)
        typer.echo(f"{one.seq:>4}  {printable(one.date):<20}  {author}  {splits}{labelled}")


def report_command(
    run_file: RunFile,
    out: Annotated[Path, typer.Option("--out", help="HTML file to write.")],
    store: StoreOption = None,
) -> None:
    """Write a self-contained HTML report of what exists of the run."""
    from hdgan.core.atomic_file import writing
    from hdgan.desk.report import render_report
    from hdgan.desk.run_artifacts import open_run

    html = render_report(open_run(run_file, store))
    with writing(out) as file:  # whole or not at all: an older report is not lost to a full disk
        file.write(html.encode())
    typer.echo(f"report: {out}")


def _login_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # A container without an entry for its user.
        return "unknown"
