"""What float32 means on a GPU."""

from __future__ import annotations

import torch


def full_float32() -> None:
    """Make float32 convolutions and products what they say, in this process.

    By default cuDNN rounds their inputs to 10 bits (TF32) on GPUs that can: pictures and features
    then differ between GPUs by more than masks and digests tolerate. Whoever wants speed says
    bfloat16.
    """
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
