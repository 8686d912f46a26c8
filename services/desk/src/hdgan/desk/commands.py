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
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to write; new or empty.")],
    store: StoreOption = None,
) -> None:
    """Write the candidates to label, their classes, a contact sheet and a short guide to DIR."""
    from hdgan.core.annotations import current
    from hdgan.desk.candidates import published_splits
    from hdgan.desk.export import CONTACT_SHEET, GUIDE_FILE, export_candidates
    from hdgan.desk.run_artifacts import open_run

    view = open_run(run_file, store)
    candidates = view.candidates()
    config = view.run.spec.annotations
    before = current(view.store, candidates.artifact.content_digest)
    assigned = candidates.assign(config, published_splits(before))
    count = export_candidates(candidates, assigned, config.classes, folder)
    typer.echo(f"{count} candidates to label in {folder} (overview: {CONTACT_SHEET})")
    typer.echo(f"How: {folder / GUIDE_FILE}. Then: hdgan annotations import {run_file} FOLDER")


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
