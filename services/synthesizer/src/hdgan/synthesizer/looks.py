"""What the ranking sees of one candidate, and the picture-sized things it is taken from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from hdgan.nets.candidates import Candidate, Candidates
from hdgan.nets.discriminator import Discriminator
from hdgan.nets.ensemble import FoldedEnsemble
from hdgan.nets.generator import Generator
from hdgan.nets.labelling import label_dense
from hdgan.nets.pyramid import FeaturePlan, render
from hdgan.synthesizer.textures import grid_positions, grid_vectors

Floats = npt.NDArray[np.float32]


NOTHING: Floats = np.zeros(0, dtype=np.float32)


@dataclass(frozen=True)
class Look:
    """One candidate, its numbers and those at the grid's pixels.

    `vectors` float32 [P, C]; `contrast`: standard deviation of its grey levels, 0 to 127.5;
    `realism`: the discriminator's logit, NaN without one. What an ensemble says, empty or NaN
    without one: `unsure` [P], uncertainty in [0, 1]; `uncertainty`, its mean over the whole
    picture.
    """

    vectors: Floats
    contrast: float
    realism: float
    unsure: Floats
    uncertainty: float


class Looker:
    """Renders candidates again, picture and features from one forward pass, and looks at them."""

    def __init__(
        self,
        generator: Generator,
        candidates: Candidates,
        plan: FeaturePlan,
        dtype: str,
        discriminator: Discriminator | None = None,
        ensemble: FoldedEnsemble | None = None,
    ) -> None:
        self._generator = generator
        self._candidates = candidates
        self._plan = plan
        self._dtype = dtype
        self._discriminator = discriminator
        self._ensemble = ensemble

    def look(self, candidate: Candidate) -> Look:
        """Look at a candidate."""
        ws, noise = self._candidates.latent(self._generator, candidate)
        rendered = render(self._generator, ws, noise, self._plan, self._dtype)
        unsure, uncertainty = self._opinion(rendered.maps)
        return Look(
            grid_vectors(rendered.maps, self._plan.resolution),
            float(rendered.image.mean(axis=2).std()),
            self._realism(rendered.image, candidate),
            unsure,
            uncertainty,
        )

    @torch.no_grad()
    def _realism(self, image: npt.NDArray[np.uint8], candidate: Candidate) -> float:
        if self._discriminator is None:
            return float("nan")
        device = next(self._discriminator.parameters()).device
        x_1CHW = torch.from_numpy(image).to(device).permute(2, 0, 1)[None].float() / 127.5 - 1.0
        labels = self._generator.arch.labels
        number = None
        if labels:
            if candidate.label not in labels:
                return float("nan")
            number = torch.tensor([labels.index(candidate.label)], device=device)
        return float(self._discriminator(x_1CHW, number))

    def _opinion(self, maps: tuple[torch.Tensor, ...]) -> tuple[Floats, float]:
        if self._ensemble is None:
            return NOTHING, float("nan")
        dense = label_dense(self._ensemble, maps)
        unsure = dense.uncertainty.reshape(-1)[grid_positions(self._plan.resolution)]
        return unsure, dense.image_uncertainty
