"""Which augmentations run: the named sets of Karras et al. 2020b, and one for histology."""

from __future__ import annotations

import dataclasses

from hdgan.core.errors import RequestError


@dataclasses.dataclass(frozen=True)
class AugmentSet:
    """The operations of a set (Karras et al. 2020b, appendix B, table of parameters)."""

    flip: bool = False  # x-flip
    rotate90: bool = False
    translate: bool = False  # integer translation, up to +-0.125 of the side
    scale: bool = False  # isotropic scale, 2**N(0, 0.2)
    rotate: bool = False  # arbitrary rotation, before and after anisotropic scaling
    stretch: bool = False  # anisotropic scale, 2**N(0, 0.2)
    shift: bool = False  # fractional translation, N(0, 0.125)
    brightness: bool = False  # N(0, 0.2)
    contrast: bool = False  # 2**N(0, 0.5)
    luma_flip: bool = False
    hue: bool = False  # rotation about the luma axis, U(-pi, pi)
    saturation: bool = False  # 2**N(0, 1)
    filter: bool = False  # gain of each of 4 frequency bands, 2**N(0, 1)
    noise: bool = False  # additive RGB noise, standard deviation |N(0, 0.1)|
    cutout: bool = False  # a square of half the side is filled with grey
    colour_strength: float = 1.0
    """Standard deviations of the colour operations in units of the paper's."""


_BLIT = AugmentSet(flip=True, rotate90=True, translate=True)
_GEOM = AugmentSet(scale=True, rotate=True, stretch=True, shift=True)
_COLOR = AugmentSet(brightness=True, contrast=True, luma_flip=True, hue=True, saturation=True)
_FILTER = AugmentSet(filter=True)
_NOISE = AugmentSet(noise=True)
_CUTOUT = AugmentSet(cutout=True)


def _union(*sets: AugmentSet) -> AugmentSet:
    names = [f.name for f in dataclasses.fields(AugmentSet) if f.name != "colour_strength"]
    return AugmentSet(**{name: any(getattr(s, name) for s in sets) for name in names})


AUGMENT_SETS: dict[str, AugmentSet] = {
    "blit": _BLIT,
    "geom": _GEOM,
    "color": _COLOR,
    "filter": _FILTER,
    "noise": _NOISE,
    "cutout": _CUTOUT,
    "bg": _union(_BLIT, _GEOM),
    "bgc": _union(_BLIT, _GEOM, _COLOR),
    "bgcf": _union(_BLIT, _GEOM, _COLOR, _FILTER),
    "bgcfn": _union(_BLIT, _GEOM, _COLOR, _FILTER, _NOISE),
    "bgcfnc": _union(_BLIT, _GEOM, _COLOR, _FILTER, _NOISE, _CUTOUT),
    # No luma flip and no hue rotation: both would invent stains, and the generator of a limited
    # dataset learns to copy augmentations that the discriminator sees too often.
    "histology": dataclasses.replace(
        _union(_BLIT, _GEOM, AugmentSet(brightness=True, contrast=True, saturation=True)),
        colour_strength=0.5,
    ),
}


def augment_set(name: str) -> AugmentSet:
    """The named set; an unknown name is a RequestError that lists the known ones."""
    try:
        return AUGMENT_SETS[name]
    except KeyError:
        known = ", ".join(AUGMENT_SETS)
        raise RequestError(f"ganTrainer.augmentSet: {name!r} is not one of {known}") from None
