"""`hdgan releases`: what was released of a dataset, and which of it is the latest."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from hdgan.core.releases import Release
    from hdgan.core.store import Store

app = typer.Typer(
    help="Look at the releases of a dataset, or choose which is the latest.", no_args_is_help=True
)

DatasetArgument = Annotated[
    str,
    typer.Argument(metavar="DATASET", help="Name of the dataset: spec.dataset, or the run's name."),
]
StoreOption = Annotated[
    str,
    typer.Option(
        "--store",
        envvar="HDGAN_STORE",
        metavar="URI",
        help="Where artifacts are kept: a folder or s3://bucket/prefix.",
    ),
]


def _open(uri: str) -> Store:
    from pathlib import Path

    from hdgan.core.store import open_store

    return open_store(uri if "://" in uri else Path(uri).absolute().as_uri())


@app.command("list")
def list_releases(
    dataset: DatasetArgument,
    store: StoreOption,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show all releases, the oldest first. * is the latest."""
    from hdgan.core.releases import latest_name, releases

    place = _open(store)
    newest = latest_name(place, dataset)
    found = releases(place, dataset)
    if as_json:
        documents = [one.model_dump(mode="json", by_alias=True) for one in found]
        typer.echo(json.dumps({"latest": newest, "releases": documents}, indent=1))
        return
    if not found:
        typer.echo(f"dataset {dataset} has no releases in {place.uri}")
    if newest is not None and newest not in {one.name for one in found}:
        typer.echo(f"{newest}, the latest, is damaged or gone: promote another one", err=True)
    for one in found:
        typer.echo(_line(place, one, one.name == newest))


def _line(store: Store, release: Release, is_latest: bool) -> str:
    dice = "" if release.macro_dice is None else f"  Dice {release.macro_dice:.3f}"
    address = store.url(f"artifacts/dataset/{release.artifacts['dataset'].key}")
    mark = "*" if is_latest else " "
    return f"{mark} {release.created:%Y-%m-%d %H:%M}  {release.name}{dice}  {address}"


@app.command("promote")
def promote_release(
    dataset: DatasetArgument,
    release: Annotated[str, typer.Argument(metavar="RELEASE", help="As `list` names it.")],
    store: StoreOption,
) -> None:
    """Make a release the latest."""
    from hdgan.core.releases import promote

    typer.echo(f"{promote(_open(store), dataset, release).name} is the latest of {dataset}")


@app.command("rollback")
def roll_back_release(dataset: DatasetArgument, store: StoreOption) -> None:
    """Make the release the latest that was it before."""
    from hdgan.core.releases import roll_back

    typer.echo(f"{roll_back(_open(store), dataset).name} is the latest of {dataset}")


@app.command("remove")
def remove_release(
    dataset: DatasetArgument,
    release: Annotated[str, typer.Argument(metavar="RELEASE", help="As `list` names it.")],
    store: StoreOption,
) -> None:
    """Forget a release that is not the latest. Its files stay until `hdgan gc` removes what no
    other release needs."""
    from hdgan.core.releases import remove

    name = remove(_open(store), dataset, release).name
    typer.echo(f"{name} is no release of {dataset} any more; hdgan gc --delete frees its space")
