"""The subcommands of `hdgan` on a trained generator: `generate` and `project`.

Only typer and core at module level: torch costs a second, and only those who use it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hdgan.nets.tools.generate import NoiseChoice
    from hdgan.nets.tools.pictures import Rgb
    from hdgan.nets.tools.source import Networks

NetworksArgument = Annotated[
    str,
    typer.Argument(
        metavar="NETWORKS",
        help="Folder or s3:// prefix with architecture.json and generator.safetensors, folder of a "
        "gan-trainer artifact, or a run file.",
    ),
]
OutArgument = Annotated[
    Path, typer.Argument(metavar="OUT", help="Folder to write to; made if it is not there.")
]
LabelOption = Annotated[
    str | None,
    typer.Option(
        "--label",
        metavar="NAME",
        help="Which of its labels (stains) a conditional generator is to make.",
    ),
]
DeviceOption = Annotated[
    Literal["auto", "cpu", "cuda"],
    typer.Option("--device", help="Where to compute; auto: the GPU if there is one."),
]
StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="URI",
        help="Store of a run file; default as for `hdgan run`.",
    ),
]
ForceOption = Annotated[
    bool, typer.Option("--force", help="Overwrite files of an earlier call in OUT.")
]


def register(app: typer.Typer) -> None:
    """Add these commands to the `hdgan` app."""
    app.command("generate")(generate_command)
    app.command("project")(project_command)


def generate_command(
    networks: NetworksArgument,
    out: OutArgument,
    seeds: Annotated[
        str | None,
        typer.Option(
            "--seeds",
            metavar="LIST",
            help="Numbers and ranges, both ends included: 0-35,40. One image each.",
        ),
    ] = None,
    psi: Annotated[
        float | None,
        typer.Option(
            "--psi",
            min=0.0,
            max=2.0,
            help="Truncation: 1 as learned, 0 the mean image. Default: 0.7; 1 with --latent.",
        ),
    ] = None,
    label: LabelOption = None,
    noise: Annotated[
        Literal["constant", "perSample", "none"] | None,
        typer.Option(
            "--noise",
            help="Per-pixel noise: the same for all images, drawn for each seed, or none. Default: "
            "constant; with --latent, the file's own if it has any.",
        ),
    ] = None,
    latent: Annotated[
        Path | None,
        typer.Option(
            "--latent",
            metavar="FILE",
            help="Instead of seeds: w from w.npy or projection.safetensors of `hdgan project`.",
        ),
    ] = None,
    grid: Annotated[
        bool, typer.Option("--grid", help="Also write all images as one sheet, grid.png.")
    ] = False,
    batch: Annotated[
        int,
        typer.Option(
            "--batch",
            min=1,
            max=4096,
            help="Images at once. More is faster on a GPU and may change a pixel by a grey level.",
        ),
    ] = 1,
    device: DeviceOption = "auto",
    store: StoreOption = None,
    force: ForceOption = False,
) -> None:
    """Make images with a trained generator: one PNG per seed.

    A seed means the same image wherever these networks are, at equal psi, label and noise.
    """
    from hdgan.core.errors import RequestError
    from hdgan.core.progress import Throttle
    from hdgan.nets.tools import generate, output_folder
    from hdgan.nets.tools.pictures import ContactSheet, encode_png
    from hdgan.nets.tools.source import choose_device, open_networks

    if (seeds is None) == (latent is None):
        raise RequestError("give either --seeds (such as 0-35,40) or --latent FILE")
    numbers = [] if seeds is None else generate.parse_seeds(seeds)
    opened = open_networks(networks, choose_device(device), store)
    if latent is None:
        psi = generate.PSI if psi is None else psi
        images = _of_seeds(opened, numbers, psi, label, noise or "constant", batch)
        stems = [f"seed{number:04d}" for number in numbers]
        texts = [{"hdgan-seed": str(number)} for number in numbers]
    else:
        psi = 1.0 if psi is None else psi
        images, count = _of_latent(opened, latent, psi, label, noise, batch)
        stems = [latent.stem] if count == 1 else [f"{latent.stem}{i:04d}" for i in range(count)]
        texts = [{"hdgan-latent": latent.name.encode("ascii", "replace").decode()}] * count
    side = opened.generator.arch.resolution
    names = [f"{stem}.png" for stem in stems]
    size = 4 * side * side * len(names)
    output_folder.claim(out, [*names, *(["grid.png"] if grid else [])], force=force, size=size)
    about = {"hdgan-generator": opened.digest, "hdgan-psi": f"{psi:g}"}
    if label is not None:
        about["hdgan-label"] = label
    sheet = ContactSheet(len(names), side) if grid else None
    throttle = Throttle(2.0)
    for done, (name, text, image) in enumerate(zip(names, texts, images, strict=True), start=1):
        output_folder.write(out, name, encode_png(image, {**about, **text}))
        if sheet is not None:
            sheet.paste(done - 1, image)
        if done == len(names) or throttle.passes(_now()):
            typer.echo(f"{done} of {len(names)} images")
    if sheet is not None:
        output_folder.write(out, "grid.png", encode_png(sheet.pixels(), about))
    where = out / ("grid.png" if grid else names[0])
    typer.echo(f"generator {opened.digest[:12]}, {side} x {side} px, psi {psi:g}: {where}")


def _of_seeds(
    opened: Networks,
    seeds: list[int],
    psi: float,
    label: str | None,
    noise: NoiseChoice,
    batch: int,
) -> Iterator[Rgb]:
    from hdgan.nets.tools.generate import images_of_seeds
    from hdgan.nets.tools.source import label_number

    number = label_number(opened.generator.arch.labels, label)
    return images_of_seeds(opened.generator, seeds, psi=psi, label=number, noise=noise, batch=batch)


def _of_latent(
    opened: Networks,
    file: Path,
    psi: float,
    label: str | None,
    noise: NoiseChoice | None,
    batch: int,
) -> tuple[Iterator[Rgb], int]:
    from hdgan.core.errors import RequestError
    from hdgan.nets.tools.generate import images_of_latents, load_latents

    if label is not None:
        raise RequestError("--label does nothing to a given w: leave it out with --latent")
    if noise == "perSample":
        raise RequestError("--noise perSample is drawn from a seed: with --latent use another")
    latents = load_latents(file, opened.generator)
    if latents.generator not in (None, opened.digest):
        typer.echo(
            f"note: {file} was found for generator {str(latents.generator)[:12]}, this is "
            f"{opened.digest[:12]}: expect another image",
            err=True,
        )
    chosen = noise or (latents.noise if latents.noise is not None else "constant")
    images = images_of_latents(opened.generator, latents.ws, chosen, psi=psi, batch=batch)
    return images, len(latents.ws)


def project_command(
    networks: NetworksArgument,
    image: Annotated[
        Path,
        typer.Argument(metavar="IMAGE", help="RGB image of the generator's size and scale."),
    ],
    out: OutArgument,
    steps: Annotated[
        int, typer.Option("--steps", min=1, max=1_000_000, help="Steps of the optimiser.")
    ] = 1000,
    seed: Annotated[
        int, typer.Option("--seed", min=0, max=2**31 - 1, help="Another seed, another search.")
    ] = 0,
    space: Annotated[
        Literal["w", "w+"],
        typer.Option(
            "--space",
            help="w: one latent for all layers. w+: one for each, nearer to the image but farther "
            "from what the generator learned.",
        ),
    ] = "w",
    label: LabelOption = None,
    resize: Annotated[
        bool,
        typer.Option("--resize", help="Scale a square image of another size to the generator's."),
    ] = False,
    device: DeviceOption = "auto",
    store: StoreOption = None,
    force: ForceOption = False,
) -> None:
    """Find the latent w whose generated image is nearest to a real one, and say how near.

    Writes w.npy, projection.safetensors (w and noise), projected.png, comparison.png and
    projection.json. Nearness is of pixels at several scales, not perceptual.
    """
    from hdgan.nets.tools import output_folder, project_image
    from hdgan.nets.tools.pictures import open_target
    from hdgan.nets.tools.source import choose_device, label_number, open_networks

    opened = open_networks(networks, choose_device(device), store)
    arch = opened.generator.arch
    number = label_number(arch.labels, label)
    target = open_target(image, arch.resolution, resize=resize)
    if target.resized:
        typer.echo(
            f"{image}: resized from {target.width} x {target.height} to {arch.resolution} x "
            f"{arch.resolution} px"
        )
    size = project_image.expected_size(opened)
    output_folder.claim(out, project_image.FILES, force=force, size=size)
    started = _now()

    def say(step: int, distance: float) -> None:
        typer.echo(f"step {step} of {steps}: distance {distance:.4f}")

    files, report = project_image.project_image(
        opened,
        target,
        image.name,
        steps=steps,
        seed=seed,
        space=space,
        label=label,
        label_number=number,
        on_step=say,
    )
    for name, data in files.items():
        output_folder.write(out, name, data)
    typer.echo(f"{_now() - started:.0f} s; root mean square error in grey levels (of 255):")
    for key, words in (
        ("projected", "projected image"),
        ("sameWOwnNoise", "same w, the generator's own noise"),
        ("meanW", "mean w, where the search began"),
    ):
        error = report["errors"][key]
        psnr = "equal" if error["psnr"] is None else f"{error['psnr']:.1f} dB"
        typer.echo(f"  {words:<35} {error['rmse']:6.2f}  {psnr}")
    typer.echo(
        f"w lies {report['distanceToMeanW']:.2f} from its mean; a random one "
        f"{report['spreadOfW']:.2f}"
    )
    typer.echo(project_image.saved_in(out))


def _now() -> float:
    import time

    return time.monotonic()
