"""`hdgan gc`: shows what of a store nobody needs any more, and removes it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hdgan.core.printable import printable

if TYPE_CHECKING:
    from hdgan.core.garbage.collecting import Found, Report

SHOWN = 20


def gc(
    store: Annotated[
        str,
        typer.Option(
            "--store",
            envvar="HDGAN_STORE",
            metavar="URI",
            help="Where artifacts are kept: a folder or s3://bucket/prefix.",
        ),
    ],
    delete: Annotated[
        bool, typer.Option("--delete", help="Mark garbage, and remove what was marked before.")
    ] = False,
    grace_hours: Annotated[
        float,
        typer.Option(
            min=0,
            max=87_600,
            help="From the mark to the removal. Less than 24 only where nothing else uses the"
            " store.",
        ),
    ] = 24.0,
    keep_days: Annotated[
        float,
        typer.Option(
            min=0,
            max=36_500,
            help="How long what a run has worked with is kept without a release.",
        ),
    ] = 30.0,
    keep_awaiting_days: Annotated[
        float,
        typer.Option(
            min=0,
            max=36_500,
            help="How long candidates wait for annotations, with their generator.",
        ),
    ] = 365.0,
    most_percent: Annotated[
        float,
        typer.Option(
            min=0,
            max=100,
            help="Most artifacts that one pass withdraws, in percent of all: more go where what"
            " keeps them was lost. Up to 20 always may.",
        ),
    ] = 50.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Look for what no run, release or annotation needs; with --delete, remove it.

    Releases, annotations and what belongs to them stay for ever, what runs have worked with for a
    while. Removal takes several passes: one marks, one a grace later removes the manifests, one a
    grace after that their files. Run it every day.
    """
    from datetime import timedelta

    from hdgan.core.errors import RequestError
    from hdgan.core.garbage.collecting import Policy, collect
    from hdgan.core.garbage.roots import Keeping
    from hdgan.core.store import open_store

    if keep_days < 3 and grace_hours > 0:
        raise RequestError(
            "--keep-days: at least 3, because runs at work renew what they hold twice a day at best"
        )
    place = open_store(store)
    if next(place.list(""), None) is None:
        raise RequestError(f"{place.uri} holds nothing: is this the store?")
    policy = Policy(
        keeping=Keeping(timedelta(days=keep_days), timedelta(days=keep_awaiting_days)),
        grace=timedelta(hours=grace_hours),
        most=most_percent / 100,
    )
    report = collect(place, policy, delete=delete)
    if as_json:
        typer.echo(json.dumps(_document(report), indent=1))
    else:
        typer.echo(printable(summary(report, delete=delete)))
    if report.held:
        raise RequestError(f"{report.held} If all is well, give --most-percent 100 once")


def _document(report: Report) -> dict[str, Any]:
    return {
        "kept": report.kept,
        "garbage": [
            {
                "kind": found.garbage.kind,
                "place": found.garbage.place,
                "why": found.garbage.why,
                "state": found.state,
                "objects": found.objects,
                "bytes": found.size,
            }
            for found in report.garbage
        ],
        "unfinished": [{"name": name, "state": state} for name, state in report.unfinished],
        "expiredPins": report.expired,
        "held": report.held,
        "restored": report.restored,
        "missing": report.missing,
        "problems": report.problems,
        "unknown": report.unknown,
        "unknownCount": report.unknown_count,
    }


def summary(report: Report, *, delete: bool) -> str:
    """The report in words, with the largest pieces of garbage."""
    from hdgan.core.stage import format_bytes

    lines = [f"{report.kept} artifacts are needed"]
    largest = sorted(report.garbage, key=lambda found: -found.size)
    lines += [_line(found) for found in largest[:SHOWN]]
    if len(largest) > SHOWN:
        lines.append(f"... and {len(largest) - SHOWN} smaller ones (--json lists all)")
    groups: dict[str, list[int]] = {}
    for found in largest:
        groups.setdefault(_state(found), []).append(found.size)
    lines += [
        f"{state}: {len(sizes)}, {format_bytes(sum(sizes))}" for state, sizes in groups.items()
    ]
    lines += [f"unfinished write, {state}: {name}" for name, state in report.unfinished[:SHOWN]]
    lines += [f"needed after all, put back: {name}" for name in report.restored]
    lines += [f"MISSING {name}" for name in report.missing]
    lines += report.problems
    if report.unknown:
        few = ", ".join(report.unknown[:5])
        lines.append(
            f"{report.unknown_count} objects are not of this program and are left alone: {few}"
        )
    if not delete and (report.garbage or report.unfinished):
        lines.append("Nothing was changed: --delete marks and removes")
    return "\n".join(lines)


def _state(found: Found) -> str:
    if found.garbage.kind == "manifest" and found.state == "removed":
        return "withdrawn (the files go a grace later)"
    return found.state


def _line(found: Found) -> str:
    from hdgan.core.stage import format_bytes

    one = found.garbage
    return f"  {found.state:<8} {format_bytes(found.size):>10}  {one.place}  {one.why}"
