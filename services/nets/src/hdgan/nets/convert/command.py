"""The subcommand `hdgan convert`. Importing this imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

SourceArgument = Annotated[Path, typer.Argument(metavar="IN", help="The .pkl file.")]
OutArgument = Annotated[
    Path, typer.Argument(metavar="OUT", help="Folder to make; must not exist or be empty.")
]

commands = typer.Typer(
    name="convert", help="Make networks of other programs readable here.", no_args_is_help=True
)


@commands.callback()
def convert() -> None:
    """Make networks of other programs readable here."""


@commands.command("stylegan2-pkl")
def stylegan2_pkl(source: SourceArgument, out: OutArgument) -> None:
    """Convert a StyleGAN2-ADA network pickle (PyTorch) for ganTrainer.initFrom and hdgan generate.

    Nothing in the pickle is executed: it is taken apart in a process with limited memory and time,
    and whatever is not plain network data is refused.
    """
    from hdgan.nets.convert.run_converter import convert_stylegan2_pickle

    arch = convert_stylegan2_pickle(source, out)
    clamp = arch["conv_clamp"]
    typer.echo(
        f"{out}: to start from it, a run file says\n"
        f"  tiler: tileSize: {arch['resolution']}\n"
        f"  ganTrainer: initFrom: {out}, latentDim: {arch['latent_dim']}, mappingLayers: "
        f"{arch['mapping_layers']}, mappingLrMultiplier: {arch['mapping_lr_multiplier']}, "
        f"channelBase: {arch['channel_base']}, channelMax: {arch['channel_max']}, convClamp: "
        f"{'null' if clamp is None else clamp}, minibatchStdGroup: {arch['minibatch_std_group']}"
    )


def register(app: typer.Typer) -> None:
    """Add this room's part of `hdgan convert` to the command line."""
    app.add_typer(commands)
