"""Slides made for tests: in memory, and as real tiled TIFF files."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

Bytes = NDArray[np.uint8]

GLASS = (244, 242, 243)
DERMIS = (226, 150, 180)
PALE_COLLAGEN = (236, 218, 228)
NUCLEI = (96, 60, 130)


class ArraySlide:
    """A slide whose levels are RGB or RGBA arrays, level 0 first."""

    vendor = "array"
    objective_power: float | None = None
    background = (255, 255, 255)
    icc_profile: bytes | None = None

    def __init__(self, *levels: Bytes, mpp: tuple[float, float] | None = (0.5, 0.5)) -> None:
        self.mpp = mpp
        self._levels = [Image.fromarray(level).convert("RGBA") for level in levels]
        self.largest_read = 0

    @property
    def dimensions(self) -> tuple[int, int]:
        return self._levels[0].size

    @property
    def level_dimensions(self) -> tuple[tuple[int, int], ...]:
        return tuple(level.size for level in self._levels)

    @property
    def downsamples(self) -> tuple[tuple[float, float], ...]:
        width, height = self.dimensions
        return tuple((width / w, height / h) for w, h in self.level_dimensions)

    def read(self, level: int, x: int, y: int, width: int, height: int) -> Image.Image:
        self.largest_read = max(self.largest_read, width * height)
        return self._levels[level].crop((x, y, x + width, y + height))

    def __enter__(self) -> ArraySlide:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None


def tissue_picture(width: int, height: int, seed: int = 0) -> Bytes:
    """Glass with a block of noisy dermis over the right two thirds, RGB [height, width, 3]."""
    random = np.random.default_rng(seed)
    picture = np.empty((height, width, 3), np.float64)
    picture[:] = GLASS
    picture[:, width // 3 :] = DERMIS
    spots = random.random((height, width)) < 0.1
    spots[:, : width // 3] = False
    picture[spots] = NUCLEI
    return (picture + random.normal(0, 2, picture.shape)).clip(0, 255).astype(np.uint8)


def write_tiff(
    path: Path, picture: Bytes, mpp: float | None = 0.5, *, profile: bytes | None = None
) -> Path:
    """A generic tiled TIFF that OpenSlide reads; `mpp` in its resolution tags, or no scale."""
    per_centimetre = None if mpp is None else (10_000 / mpp, 10_000 / mpp)
    tifffile.imwrite(
        path,
        picture,
        photometric="rgb",
        iccprofile=profile,
        tile=(128, 128),
        compression="zlib",
        resolution=per_centimetre,
        resolutionunit="NONE" if mpp is None else "CENTIMETER",
        metadata=None,
    )
    return path


def halved(picture: Bytes) -> Bytes:
    """Every pixel the mean of two by two, a broken last row or column dropped."""
    height, width = picture.shape[0] // 2 * 2, picture.shape[1] // 2 * 2
    quads = picture[:height, :width].astype(np.uint16)
    total = quads[::2, ::2] + quads[1::2, ::2] + quads[::2, 1::2] + quads[1::2, 1::2]
    return ((total + 2) // 4).astype(np.uint8)


def pyramid(picture: Bytes, levels: int) -> list[Bytes]:
    """The picture, and each level half of the one before."""
    made = [picture]
    while len(made) < levels:
        made.append(halved(made[-1]))
    return made


def write_ome_tiff(
    path: Path,
    levels: list[Bytes],
    *,
    mpp: tuple[float, float] | None = (0.25, 0.25),
    unit: str = "µm",
    **how: Any,
) -> Path:
    """An OME-TIFF whose lower levels are in SubIFDs. `how`: more for tifffile's write()."""
    options: dict[str, Any] = {"tile": (128, 128), "photometric": "rgb", "compression": "zlib"}
    options |= how
    metadata: dict[str, Any] = {"axes": "YXS"}
    if mpp is not None:
        metadata |= {"PhysicalSizeX": mpp[0], "PhysicalSizeXUnit": unit}
        metadata |= {"PhysicalSizeY": mpp[1], "PhysicalSizeYUnit": unit}
    with tifffile.TiffWriter(path, ome=True, bigtiff=bool(options.pop("bigtiff", False))) as file:
        file.write(levels[0], subifds=len(levels) - 1, metadata=metadata, **options)
        for level in levels[1:]:
            file.write(level, subfiletype=1, **options)
    return path


def write_vms(folder: Path, picture: Bytes, mpp: float = 0.5) -> Path:
    """A slide of four files as Hamamatsu's older scanners write it; OpenSlide reads it."""
    folder.mkdir(parents=True, exist_ok=True)
    height, width = picture.shape[:2]
    image = Image.fromarray(picture)
    small = image.resize((width // 8, height // 8), Image.Resampling.BOX)
    for name, one in (("h.jpg", image), ("h (map).jpg", small), ("h_macro.jpg", small)):
        # The format finds its way through the JPEG stream by restart markers.
        one.save(folder / name, quality=95, subsampling=0, restart_marker_blocks=8)
    lines = [
        "[Virtual Microscope Specimen]",
        "NoLayers=1",
        "NoJpegColumns=1",
        "NoJpegRows=1",
        "ImageFile=h.jpg",
        "MapFile=h (map).jpg",
        "MacroImage=h_macro.jpg",
        f"PhysicalWidth={round(width * mpp * 1000)}",
        f"PhysicalHeight={round(height * mpp * 1000)}",
        "SourceLens=20",
    ]
    (folder / "h.vms").write_text("\r\n".join(lines))
    return folder / "h.vms"
