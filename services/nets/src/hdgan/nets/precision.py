"""In which precision pictures and features are computed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch

Precision = Literal["float32", "bfloat16"]
"""How pictures are rendered: all in float32, or the largest blocks in bfloat16."""

MIXED_RESOLUTIONS = 4
"""The largest resolutions that are rendered in 16 bits (StyleGAN2-ADA: 4)."""


def precision_of(document: Mapping[str, Any]) -> Precision:
    """What a description of candidates or of an ensemble says; float32 where it says nothing.

    Raises ValueError for anything else.
    """
    found = document.get("precision", "float32")
    if found not in get_args(Precision):
        raise ValueError(f"precision {found!r}")
    return "bfloat16" if found == "bfloat16" else "float32"


def full_float32() -> None:
    """Make float32 convolutions and products what they say, in this process.

    By default cuDNN rounds their inputs to 10 bits (TF32) on GPUs that can: pictures and features
    then differ between GPUs by more than masks and digests tolerate. Whoever wants speed says
    bfloat16.
    """
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
