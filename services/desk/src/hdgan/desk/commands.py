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
    from hdgan.desk.candidates import published_splits
    from hdgan.desk.export import export_candidates, with_count
    from hdgan.desk.export_layout import CONTACT_SHEET, GUIDE_FILE, PROJECT_FILE
    from hdgan.desk.run_artifacts import open_run

    view = open_run(run_file, store)
    candidates = view.candidates()
    config = view.run.spec.annotations
    before = current(view.store, candidates.artifact.content_digest)
    assigned = candidates.assign(with_count(config, count), published_splits(before))
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
        typer.Argument(metavar="PATH...", help="PNG masks, QuPath GeoJSON, or folders of them."),
    ],
    store: StoreOption = None,
    author: Annotated[
        str | None, typer.Option("--author", help="Who labelled; default: the user's login name.")
    ] = None,
    accept: Annotated[
        bool,
        typer.Option("--accept", help="Trust masks matched by a shortened id in their name alone."),
    ] = False,
    background: Annotated[
        str | None,
        typer.Option("--background", help="Class of unlabelled pixels; default: none (ignored)."),
    ] = None,
) -> None:
    """Check labels and publish them as a new version; nothing is imported if anything is wrong."""
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
        run_info={
            "author": author or _login_name(),
            "date": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
            "run": view.run.metadata.name,
        },
    )
    if not imported.changed:
        typer.echo(f"nothing new: version {imported.version} holds exactly these annotations")
        return
    typer.echo(f"imported {len(imported.images)} images as version {imported.version}")
    for index, entry in enumerate(view.run.spec.annotations.classes):
        pixels = sum(image.pixels[index] for image in imported.images)
        total = sum(sum(image.pixels) + image.unlabelled for image in imported.images)
        typer.echo(f"  {entry.name:<24} {100 * pixels / total:5.1f} % of pixels")
    typer.echo(f"Look at what was understood: {imported.artifact.uri('preview.png')}")
    typer.echo(f"Then: hdgan run {run_file}")


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
