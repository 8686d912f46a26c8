"""Slides and tiles painted by optical density, with what is tissue, pen and rubbish known exactly.

Light through stains multiplies (Beer-Lambert), so a picture is white * 10^-density, density being
the sum of each stain's amount times its absorption in red, green and blue. Absorptions of histology
stains: Ruifrok and Johnston 2001 and the vectors ImageJ distributes; those of silver, its
counterstain and pens are read off pictures. Sizes are micrometres, so a tile and a slide seen from
afar show the same tissue.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]
Bytes = NDArray[np.uint8]
StainName = Literal["h&e", "pas", "jones", "trichrome"]
STAINS: tuple[StainName, ...] = ("h&e", "pas", "jones", "trichrome")
PENS = ("black", "blue", "green", "red")

LAMP = (244, 242, 243)

HAEMATOXYLIN = np.array([0.65, 0.70, 0.29], np.float32)
EOSIN = np.array([0.07, 0.99, 0.11], np.float32)
SCHIFF = np.array([0.175, 0.972, 0.155], np.float32)
METHYL_BLUE = np.array([0.80, 0.59, 0.105], np.float32)
PONCEAU = np.array([0.10, 0.737, 0.668], np.float32)
SILVER = np.array([0.60, 0.61, 0.58], np.float32)
BROWN_GREY = np.array([0.50, 0.58, 0.68], np.float32)
INKS = {
    "black": np.array([1.35, 1.4, 1.35], np.float32),
    "blue": np.array([1.3, 0.75, 0.25], np.float32),
    "green": np.array([1.05, 0.35, 0.8], np.float32),
    "red": np.array([0.08, 0.95, 0.85], np.float32),
}


@dataclass(frozen=True)
class StainedSlide:
    """A slide seen from afar.

    picture: RGB uint8 [h, w, 3]; tissue: at least half of the pixel is tissue no pen covers;
    pieces: the same, one mask for each piece by name; pen: at least half is ink; rubbish: edges,
    fiducials; covered: where it was scanned; um: micrometres per pixel.
    """

    picture: Bytes
    tissue: Bools
    pieces: dict[str, Bools]
    pen: Bools
    rubbish: Bools
    dust: Bools
    covered: Bools
    um: float

    @property
    def image(self) -> Image.Image:
        return Image.fromarray(self.picture)


def photograph(
    density_HWC: Floats,
    lamp: tuple[float, float, float] = LAMP,
    *,
    unevenness: float = 0.0,
    noise: float = 1.5,
    quality: int | None = 85,
    seed: int = 0,
) -> Bytes:
    """The scanner's picture of an optical density.

    unevenness: how much darker, 0..1, a corner of the glass is; noise: standard deviation in grey
    levels; quality: of a JPEG it went through (None: of none).
    """
    height, width = density_HWC.shape[:2]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    light = 1 - unevenness * ((x * x + y * y) / 2 * 0.6 + (x + 1) / 2 * 0.4)
    seen = np.array(lamp, np.float32) * light[..., None] * 10**-density_HWC
    seen += np.random.default_rng(seed).normal(0, noise, seen.shape).astype(np.float32)
    picture = np.asarray(seen.clip(0, 255).round(), np.uint8)
    if quality is None:
        return picture
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def tissue_density(
    stain: StainName, shape: tuple[int, int], mpp: float, seed: int = 0, amount: float = 1.0
) -> Floats:
    """Optical density [h, w, 3] of solid tissue; amount: of stain and thickness, 1 is usual."""
    random = np.random.default_rng(seed)
    nuclei = _discs(random, shape, mpp, per_square_um=1 / 260, radius=3.2)
    nuclei *= 0.6 + 0.4 * _noise(random, shape, 40 / mpp).clip(0, 1)
    fibres = _fibres(random, shape, mpp)
    lobes = 1 / (1 + np.exp(-3 * _noise(random, shape, 90 / mpp)))
    lines = _lines(random, shape, mpp, spacing=9.0, width=1.3)
    matrix = 0.35 + 0.65 * fibres
    if stain == "h&e":
        layers = [(HAEMATOXYLIN, 0.75 * nuclei + 0.08), (EOSIN, matrix * (0.18 + 0.25 * lobes))]
    elif stain == "pas":
        layers = [
            (HAEMATOXYLIN, 0.5 * nuclei + 0.04),
            (SCHIFF, 0.10 + 0.12 * matrix + 0.6 * lines * lobes),
        ]
    elif stain == "jones":
        layers = [
            (SILVER, 1.6 * lines * (0.2 + 0.8 * lobes)),
            (BROWN_GREY, 0.08 + 0.10 * matrix),
            (HAEMATOXYLIN, 0.25 * nuclei),
        ]
    else:
        layers = [
            (METHYL_BLUE, matrix * lobes * 0.75),
            (PONCEAU, (1 - lobes) * (0.25 + 0.35 * fibres)),
            (HAEMATOXYLIN, 0.6 * nuclei),
        ]
    density = np.zeros((*shape, 3), np.float32)
    for colour, layer in layers:
        density += layer[..., None].astype(np.float32) * colour
    return density * np.float32(amount)


def fat_density(
    stain: StainName, shape: tuple[int, int], mpp: float, seed: int = 0, amount: float = 1.0
) -> Floats:
    """Optical density [h, w, 3] of fat: empty cells of 80 um, septa of 2 um between them."""
    random = np.random.default_rng(seed)
    septa = _septa(random, shape, mpp, cell=80.0, width=2.0)
    colour = {
        "h&e": 0.4 * EOSIN + 0.1 * HAEMATOXYLIN,
        "pas": 0.4 * SCHIFF + 0.05 * HAEMATOXYLIN,
        "jones": 0.25 * SILVER + 0.4 * BROWN_GREY,
        "trichrome": 0.5 * METHYL_BLUE,
    }[stain]
    return np.asarray((septa[..., None] * colour * amount), np.float32)


def paint_slide(
    stain: StainName,
    *,
    um: float = 8.0,
    seed: int = 0,
    lamp: tuple[float, float, float] = LAMP,
    unevenness: float = 0.06,
    pens: tuple[str, ...] = (),
    pen_on_tissue: str | None = None,
    edges: bool = True,
    fiducials: bool = True,
    dust: int = 60,
    unscanned: bool = True,
    amount: float = 1.0,
) -> StainedSlide:
    """A slide of 6 x 9 mm with two cores, a round piece with fat, a pale piece and fragments.

    pens: strokes over glass; pen_on_tissue: one across the round piece; edges: of the coverslip and
    the slide, at the rim; dust: specks of 10 to 30 um.
    """
    fine = um / 2  # painted twice as fine, then seen with pixels of `um`
    shape = (2 * round(9000 / um), 2 * round(6000 / um))
    random = np.random.default_rng(seed + 1000)
    pieces = _pieces(random, shape, fine)
    density = np.zeros((*shape, 3), np.float32)
    solid = tissue_density(stain, shape, fine, seed, amount)
    for name, mask in pieces.items():
        part = solid * np.float32(0.3) if name == "pale" else solid
        if name == "fat":
            part = fat_density(stain, shape, fine, seed)
        density = np.where(mask[..., None], part, density)

    ink = np.zeros(shape, np.float32)
    inked = np.zeros((*shape, 3), np.float32)
    strokes = [(colour, _glass_stroke(number)) for number, colour in enumerate(pens)]
    if pen_on_tissue is not None:
        strokes.append((pen_on_tissue, [(3300.0, 5200.0), (4200.0, 6100.0), (5300.0, 6900.0)]))
    for number, (colour, points) in enumerate(strokes):
        stroke = _stroke(shape, fine, points, 450.0)
        cloud = 1 + 0.12 * _noise(np.random.default_rng(seed + number), shape, 120 / fine)
        inked += (stroke * cloud)[..., None] * INKS[colour]
        ink = np.maximum(ink, stroke)
    density += inked

    rubbish = np.zeros(shape, np.float32)
    if edges:
        lines: list[tuple[list[tuple[float, float]], float, float]] = [
            ([(170, -50), (230, 9050)], 35.0, 0.35),
            ([(-50, 8760), (6050, 8700)], 40.0, 0.5),
        ]
        for points, width, dark in lines:
            line = _stroke(shape, fine, points, width)
            density += (line * dark)[..., None]
            rubbish = np.maximum(rubbish, line)
        rows = np.arange(shape[0])[:, None] * fine
        columns = np.arange(shape[1])[None] * fine
        band = (rows < 130 + 0.008 * columns).astype(np.float32)
        density += (band * 0.45)[..., None]
        rubbish = np.maximum(rubbish, band)
    if fiducials:
        boxes = [
            (5300, 300, 5700, 700),
            *((4300 + 90 * k, 300, 4345 + 90 * k, 700) for k in (0, 2, 3, 5, 6)),
        ]
        for left, top, right, bottom in boxes:
            box = (
                slice(int(top / fine), int(bottom / fine)),
                slice(int(left / fine), int(right / fine)),
            )
            density[box] = 1.7
            rubbish[box] = 1
    specks = _specks(random, shape, fine, dust, sum(pieces.values(), np.zeros(shape, bool)))
    density += (specks * 0.8)[..., None]

    density = _halved(density, in_light=True)
    covered = np.ones(density.shape[:2], bool)
    picture = photograph(density, lamp, unevenness=unevenness, seed=seed)
    if unscanned:
        covered[-round(320 / um) :, -round(960 / um) :] = False
        picture = picture.copy()
        picture[~covered] = 0
    seen = {name: (_halved(mask.astype(np.float32)) >= 0.5) for name, mask in pieces.items()}
    pen = _halved(ink) >= 0.5
    parts = {name: mask & covered & ~pen for name, mask in seen.items()}
    return StainedSlide(
        picture=picture,
        tissue=np.any(list(parts.values()), axis=0),
        pieces=parts,
        pen=pen & covered,
        rubbish=(_halved(rubbish) >= 0.5) & covered,
        dust=(_halved(specks) >= 0.25) & covered,
        covered=covered,
        um=um,
    )


def tile(
    stain: StainName,
    *,
    side: int = 256,
    mpp: float = 0.5,
    amount: float = 1.0,
    blur_um: float = 0.0,
    lamp: tuple[float, float, float] = LAMP,
    seed: int = 0,
    fat: bool = False,
    noise: float = 1.5,
) -> Image.Image:
    """A tile of tissue as a good objective shows it (0.35 um of blur), blurred `blur_um` more."""
    paint = fat_density if fat else tissue_density
    light = 10 ** -paint(stain, (side, side), mpp, seed, amount)
    sigma = float(np.hypot(0.35, blur_um)) / mpp
    light = ndimage.gaussian_filter(light, (sigma, sigma, 0), mode="mirror")
    return Image.fromarray(photograph(-np.log10(light), lamp, noise=noise, quality=90, seed=seed))


def inked_tile(image: Image.Image, colour: str, where: Bools, strength: float = 1.0) -> Image.Image:
    """The tile with pen of a colour over it where `where` is set."""
    edge = ndimage.gaussian_filter(where.astype(np.float32), 3)[..., None]
    cloud = 1 + 0.08 * _noise(np.random.default_rng(7), where.shape, 60)[..., None]
    light = np.asarray(image) * 10 ** (-edge * cloud * INKS[colour] * strength)
    return Image.fromarray(light.clip(0, 255).astype(np.uint8))


def _noise(random: np.random.Generator, shape: tuple[int, int], sigma: float) -> Floats:
    """Smooth noise of standard deviation 1; sigma in pixels."""
    step = max(1, int(sigma / 3))
    small = (shape[0] // step + 3, shape[1] // step + 3)
    field = ndimage.gaussian_filter(random.standard_normal(small, np.float32), sigma / step)
    field /= max(float(field.std()), 1e-6)
    if step > 1:
        field = ndimage.zoom(field, step, order=1)
    return np.asarray(field[: shape[0], : shape[1]], np.float32)


def _fibres(random: np.random.Generator, shape: tuple[int, int], mpp: float) -> Floats:
    """Wavy fibres some 3 um thick and 25 um long, 0..1, with borders as sharp as the pixels."""
    field = random.standard_normal(shape, np.float32)
    field = ndimage.gaussian_filter(field, (1.6 / mpp, 12 / mpp))
    field /= max(float(field.std()), 1e-6)
    return np.asarray((0.5 + field * 1.2).clip(0, 1), np.float32)


def _discs(
    random: np.random.Generator,
    shape: tuple[int, int],
    mpp: float,
    per_square_um: float,
    radius: float,
) -> Floats:
    count = round(per_square_um * shape[0] * shape[1] * mpp * mpp)
    points = np.ones(shape, bool)
    points[random.integers(0, shape[0], count), random.integers(0, shape[1], count)] = False
    distance = ndimage.distance_transform_edt(points) * mpp
    return np.asarray(((radius - distance) / mpp + 0.5).clip(0, 1), np.float32)


def _lines(
    random: np.random.Generator, shape: tuple[int, int], mpp: float, spacing: float, width: float
) -> Floats:
    """Thin curved lines, level sets of smooth noise; wider pixels are partly covered."""
    field = _noise(random, shape, spacing / 2 / mpp)
    slope = np.hypot(*np.gradient(field)) + 1e-3
    away = np.abs(field) / slope * mpp
    seen = max(width, mpp)
    return np.asarray((((seen - 2 * away) / mpp + 1).clip(0, 1) * min(1, width / mpp)), np.float32)


def _septa(
    random: np.random.Generator, shape: tuple[int, int], mpp: float, cell: float, width: float
) -> Floats:
    count = max(2, round(shape[0] * shape[1] * mpp * mpp / cell**2))
    points = np.ones(shape, bool)
    points[random.integers(0, shape[0], count), random.integers(0, shape[1], count)] = False
    near = ndimage.distance_transform_edt(points, return_distances=False, return_indices=True)
    owner = near[0].astype(np.int64) * shape[1] + near[1]
    border = np.zeros(shape, bool)
    border[:, 1:] |= owner[:, 1:] != owner[:, :-1]
    border[1:] |= owner[1:] != owner[:-1]
    if width > mpp:
        away = ndimage.distance_transform_edt(~border) * mpp
        return np.asarray(((width / 2 - away) / mpp + 0.5).clip(0, 1), np.float32)
    return border.astype(np.float32) * np.float32(width / mpp)


def _pieces(random: np.random.Generator, shape: tuple[int, int], mpp: float) -> dict[str, Bools]:
    rows, columns = (np.mgrid[: shape[0], : shape[1]] * mpp).astype(np.float32)
    rough = 60 * _noise(random, shape, 60 / mpp) + 30 * _noise(random, shape, 20 / mpp)
    pieces = {}
    for number, (middle, half) in enumerate(((900, 320), (1900, 200)), start=1):
        bend = middle + 150 * np.sin(rows / 900 + number)
        ends = (rows > 900 + 100 * number) & (rows < 7800 - 400 * number)
        pieces[f"core {number}"] = (np.abs(columns - bend) + rough < half) & ends

    def disc(x: float, y: float, radius: float, roughness: float) -> Bools:
        away = np.hypot(columns - x, rows - y) + roughness * rough
        return np.asarray(away < radius, dtype=bool)

    pieces["round"] = disc(4200, 6000, 900, 1.0)
    pieces["fat"] = disc(4200, 4600, 700, 0.5) & ~pieces["round"]
    pieces["pale"] = disc(4300, 2300, 700, 1.0)
    for number, (x, y, radius) in enumerate(
        ((3000, 1500, 25), (3000, 2000, 30), (3000, 2600, 40), (3100, 8100, 60), (3700, 8000, 100)),
        1,
    ):
        pieces[f"fragment {number}"] = disc(x, y, radius, 0)
    return pieces


def _glass_stroke(number: int) -> list[tuple[float, float]]:
    """Strokes between the pieces."""
    return [
        [(2500.0, 700.0), (2600.0, 900.0), (2550.0, 1100.0)],
        [(2750.0, 3300.0), (3300.0, 3500.0), (5600.0, 3450.0)],
        [(2700.0, 5000.0), (2750.0, 6500.0), (2600.0, 7400.0)],
        [(4600.0, 7700.0), (5300.0, 7500.0), (5700.0, 7900.0)],
    ][number % 4]


def _stroke(
    shape: tuple[int, int], mpp: float, points: list[tuple[float, float]], width: float
) -> Floats:
    """A line `width` um wide through points (x, y), 0..1, its borders half a pixel soft."""
    scale = 4 if width / mpp < 40 else 1
    canvas = Image.new("L", (shape[1] * scale, shape[0] * scale))
    pen = ImageDraw.Draw(canvas)
    path = [(x / mpp * scale, y / mpp * scale) for x, y in points]
    pen.line(path, fill=255, width=max(1, round(width / mpp * scale)), joint="curve")
    if width > 100:
        radius = width / mpp * scale / 2
        for x, y in (path[0], path[-1]):
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
    drawn = canvas.resize((shape[1], shape[0]), Image.Resampling.BOX)
    return np.asarray(np.asarray(drawn) / 255, np.float32)


def _specks(
    random: np.random.Generator, shape: tuple[int, int], mpp: float, count: int, away_from: Bools
) -> Floats:
    """Dust of 10 to 30 um across, nowhere near tissue or each other."""
    specks = np.zeros(shape, np.float32)
    free = ndimage.distance_transform_edt(~away_from) * mpp > 250
    placed = 0
    while placed < count and free.any():
        y, x = random.integers(0, shape[0]), random.integers(0, shape[1])
        if not free[y, x]:
            placed += 1  # a speck on tissue is no speck that matters
            continue
        radius = random.uniform(5, 15)
        reach = int(200 / mpp)
        top, left = max(0, y - reach), max(0, x - reach)
        rows, columns = np.ogrid[top : min(shape[0], y + reach), left : min(shape[1], x + reach)]
        away = np.hypot(rows - y, columns - x) * mpp
        window = (slice(top, y + reach), slice(left, x + reach))
        specks[window] = np.maximum(specks[window], ((radius - away) / mpp + 0.5).clip(0, 1))
        free[window] &= away > 150
        placed += 1
    return specks


def _halved(values: Floats, in_light: bool = False) -> Floats:
    """2 x 2 means; of densities in the light that comes through (in_light)."""
    field = 10**-values if in_light else values
    height, width = field.shape[:2]
    blocks = field.reshape(height // 2, 2, width // 2, 2, *field.shape[2:]).mean(axis=(1, 3))
    return np.asarray(-np.log10(blocks) if in_light else blocks, np.float32)
