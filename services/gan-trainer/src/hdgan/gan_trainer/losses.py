"""Losses and regularisers of StyleGAN2 as functions of networks and tensors.

Sources: Goodfellow et al. 2014 (non-saturating logistic loss), Mescheder et al. 2018 (R1),
Karras et al. 2020a (path length, lazy regularisation, style mixing).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from hdgan.nets.generator import Generator


def generator_loss(fake_logits_B: Tensor) -> Tensor:
    """Non-saturating: -log sigmoid(D(G(z))) per image. Returns [B]."""
    return F.softplus(-fake_logits_B)


def real_loss(real_logits_B: Tensor) -> Tensor:
    """Logistic loss of the discriminator on reals: -log sigmoid(D(x)) per image. Returns [B]."""
    return F.softplus(-real_logits_B)


def fake_loss(fake_logits_B: Tensor) -> Tensor:
    """The same on fakes: -log(1 - sigmoid(D(G(z)))) per image. Returns [B]."""
    return F.softplus(fake_logits_B)


def r1_penalty(real_logits_B: Tensor, reals_B3HW: Tensor) -> Tensor:
    """|grad_x D(x)|^2 per image (to be weighted by gamma / 2). Returns [B]."""
    (gradient,) = torch.autograd.grad(real_logits_B.sum(), reals_B3HW, create_graph=True)
    return gradient.square().sum(dim=(1, 2, 3))


def path_lengths(images_B3HW: Tensor, ws_BND: Tensor, y_B3HW: Tensor) -> Tensor:
    """|J_w^T y| per image: sqrt of the mean over layers of the squared length. Returns [B].

    Args:
        images_B3HW: made from ws_BND, with a graph.
        y_B3HW: standard normal; scaled here by 1 / sqrt(H * W) (Karras et al. 2020a, appendix B).
    """
    height, width = images_B3HW.shape[2:]
    projection = (images_B3HW * y_B3HW).sum() / math.sqrt(height * width)
    (gradient,) = torch.autograd.grad(projection, ws_BND, create_graph=True)
    return gradient.square().sum(dim=2).mean(dim=1).sqrt()


def mix_styles(
    generator: Generator,
    z_BZ: Tensor,
    other_z_BZ: Tensor,
    cutoff_B: Tensor,
    label_B: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Map two latents per image and use the second from layer `cutoff` on.

    Returns (ws [B, N, D], w of the first latents [B, D]). A cutoff of N mixes nothing.
    """
    mapping = generator.mapping
    batch = z_BZ.shape[0]
    labels = None if label_B is None else torch.cat([label_B, label_B])
    w_both = mapping.w(torch.cat([z_BZ, other_z_BZ]), labels)
    w, other = w_both[:batch], w_both[batch:]
    layer = torch.arange(mapping.num_ws, device=z_BZ.device)
    use_other = layer[None, :, None] >= cutoff_B[:, None, None]
    ws = torch.where(use_other, mapping.broadcast(other), mapping.broadcast(w))
    return ws, w
