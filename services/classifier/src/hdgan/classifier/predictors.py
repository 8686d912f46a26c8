"""What can be scored: anything that labels an image in bands of rows and says how sure it is."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from hdgan.nets.ensemble import FoldedEnsemble
from hdgan.nets.labelling import iter_dense
from hdgan.nets.shards import ImageFeatures

Values = npt.NDArray[np.float32]


@dataclass(frozen=True)
class PredictedRows:
    """Rows of a picture from row `first` on; everything [R, W].

    `prediction` uint8 class indices; `confidence` float32, probability of the predicted class;
    `entropy` float32 in [0, 1], of the probabilities over ln classes; `uncertainty` float32 in
    [0, 1], Jensen-Shannon divergence between members, None for what is no ensemble.
    """

    first: int
    prediction: npt.NDArray[np.uint8]
    confidence: Values
    entropy: Values
    uncertainty: Values | None


Predict = Callable[[ImageFeatures], Iterator[PredictedRows]]
"""All rows of an image, from the top down."""


def ensemble_predictor(folded: FoldedEnsemble) -> Predict:
    """Predict with an ensemble from an image's maps."""
    alone = folded.spec.members == 1

    def predict(image: ImageFeatures) -> Iterator[PredictedRows]:
        for first, dense in iter_dense(folded, image.maps, probabilities=True):
            assert dense.probabilities is not None
            yield PredictedRows(
                first,
                dense.mask,
                dense.probabilities.max(axis=0),
                dense.entropy,
                None if alone else dense.uncertainty,
            )

    return predict


def prior_predictor(counts: Sequence[int]) -> Predict:
    """The majority class everywhere, as sure as the training labels are: the least to beat."""
    prior = np.asarray(counts, dtype=np.float64) / sum(counts)
    chosen = int(prior.argmax())
    present = prior[prior > 0]
    spread = float(-(present * np.log(present)).sum()) / math.log(len(prior))

    def predict(image: ImageFeatures) -> Iterator[PredictedRows]:
        shape = image.labels.shape
        yield PredictedRows(
            0,
            np.full(shape, chosen, dtype=np.uint8),
            np.broadcast_to(np.float32(prior[chosen]), shape),
            np.broadcast_to(np.float32(spread), shape),
            None,
        )

    return predict


def one_member(folded: FoldedEnsemble, index: int) -> FoldedEnsemble:
    """The member `index` of an ensemble as an ensemble of one: what a tenth of the work gives."""
    members, width = folded.spec.members, folded.spec.widths[1]
    if not 0 <= index < members:
        raise IndexError(f"there is no member {index} among {members}")
    own = slice(index * width, (index + 1) * width)
    return replace(
        folded,
        spec=replace(folded.spec, members=1),
        first=tuple(one[:, own].contiguous() for one in folded.first),
        first_bias=folded.first_bias[own].contiguous(),
        later=tuple(
            (weight[index : index + 1].contiguous(), bias[index : index + 1].contiguous())
            for weight, bias in folded.later
        ),
    )
