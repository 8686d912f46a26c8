"""The OME description of a TIFF: which picture it is about, how large its pixels are."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass

from hdgan.tiler.scale import Mpp, plausible
from hdgan.tiler.slide import SlideError

# The description of a slide has some kB; a plate with thousands of fields a few MB.
MAX_CHARACTERS = 16 << 20
MAX_ELEMENTS = 1_000_000

# Micrometres per unit, as OME spells them; "pixel" and "reference frame" are no lengths.
MICROMETRES = {
    "Å": 1e-4,
    "pm": 1e-6,
    "nm": 1e-3,
    "µm": 1.0,  # MICRO SIGN
    "μm": 1.0,  # GREEK SMALL LETTER MU
    "um": 1.0,
    "mm": 1e3,
    "cm": 1e4,
    "in": 25_400.0,
    "m": 1e6,
}


@dataclass(frozen=True)
class OmeImage:
    """One picture of the file.

    ifd: which of the file's pages; channels: samples of each channel; planes: focal planes times
    time points; files: names of the files it is spread over; mpp: None where it does not say.
    """

    width: int
    height: int
    pixel_type: str
    channels: tuple[int, ...]
    planes: int
    ifd: int
    files: frozenset[str]
    mpp: Mpp | None
    objective_power: float | None


def is_ome(description: str) -> bool:
    """Whether a TIFF's description is OME-XML."""
    return description.rstrip().endswith("OME>")


def parse_ome(description: str) -> list[OmeImage]:
    """The pictures an OME-XML text describes.

    SlideError where it is no such text. No entity is ever expanded and nothing is fetched.
    """
    if len(description) > MAX_CHARACTERS:
        raise SlideError(
            f"has an OME description of {len(description)} characters, more than {MAX_CHARACTERS}; "
            "export it again without annotations"
        )
    if description.count("<") > MAX_ELEMENTS:
        raise SlideError(
            f"has an OME description of more than {MAX_ELEMENTS} elements; export it again without "
            "annotations"
        )
    if "<!DOCTYPE" in description or "<!ENTITY" in description:
        raise SlideError("has an OME description with a DOCTYPE, which OME-XML never has")
    try:
        root = ET.fromstring(description.strip("\x00 \r\n\t"))
        powers = {
            objective.get("ID"): _positive(objective.get("NominalMagnification"))
            for objective in _below(root, "Objective")
        }
        return [_image(image, powers) for image in _children(root, "Image")]
    except (ET.ParseError, ValueError, RecursionError) as error:
        raise SlideError(
            f"has an OME description that cannot be understood ({error}); export it again"
        ) from error


def _image(image: ET.Element, powers: dict[str | None, float | None]) -> OmeImage:
    pixels = next(_children(image, "Pixels"), None)
    if pixels is None:
        raise ValueError("an Image without Pixels")
    channels = tuple(
        _whole(channel.get("SamplesPerPixel", "1")) for channel in _children(pixels, "Channel")
    )
    data = list(_children(pixels, "TiffData"))
    settings = next(_children(image, "ObjectiveSettings"), None)
    return OmeImage(
        width=_whole(pixels.get("SizeX", "")),
        height=_whole(pixels.get("SizeY", "")),
        pixel_type=pixels.get("Type", ""),
        channels=channels or (_whole(pixels.get("SizeC", "1")),),
        planes=_whole(pixels.get("SizeZ", "1")) * _whole(pixels.get("SizeT", "1")),
        ifd=min((_whole(one.get("IFD", "0")) for one in data), default=0),
        files=frozenset(
            name
            for one in data
            for uuid in _children(one, "UUID")
            if (name := uuid.get("FileName")) is not None
        ),
        mpp=plausible(_micrometres(pixels, "PhysicalSizeX"), _micrometres(pixels, "PhysicalSizeY")),
        objective_power=None if settings is None else powers.get(settings.get("ID")),
    )


def _micrometres(pixels: ET.Element, name: str) -> float | None:
    value = _positive(pixels.get(name))
    unit = MICROMETRES.get(pixels.get(f"{name}Unit", "µm"))
    return None if value is None or unit is None else value * unit


def _whole(text: str) -> int:
    """A size or a number of something, as the schema has it: not negative, at most 9 digits."""
    if re.fullmatch(r"[ \t\r\n]*\+?[0-9]{1,9}[ \t\r\n]*", text) is None:
        raise ValueError(f"{text[:40]!r} is no whole number")
    return int(text)


def _positive(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) and value > 0 else None


def _children(element: ET.Element, name: str) -> Iterator[ET.Element]:
    """Children by name, whichever year's namespace they are in."""
    return (child for child in element if _local(child) == name)


def _below(element: ET.Element, name: str) -> Iterator[ET.Element]:
    return (child for child in element.iter() if _local(child) == name)


def _local(element: ET.Element) -> str:
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""
