"""Which candidates teach most when they are labelled: pure functions over a ranking's table.

Images are chosen one after the other; each is the one that adds most to what the images labelled so
far show. What a set of images shows is measured by two sums that both grow less the more is known:

- over textures k, sqrt(sum_i m_ik), where m_ik is how much of image i shows texture k. A texture
  that few images show counts as much as one that is everywhere. With an ensemble, each pixel counts
  by its uncertainty, so that textures count for what is not yet understood of them.
- over all candidates j, the similarity of j to the nearest image of the set (facility location).

Both are monotone submodular, so choosing greedily comes within 1 - 1/e of the best set (Nemhauser,
Wolsey and Fisher 1978). Both were measured against random choice: docs/annotations.md.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hdgan.core.artifact import Artifact
from hdgan.core.errors import InputMissing
from hdgan.core.parquet_tables import ParquetError, read_parquet
from hdgan.core.well_formed import well_formed
from hdgan.desk.artifact_documents import read_json

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

MAX_COLUMNS = 1000
"""Of the numbers of one kind that a candidate has."""
LANDMARKS = 2000
"""Candidates that stand for all others in the second sum: every n-th one."""
MAX_DISTANCES = 20_000_000
SPREAD = 0.5
"""Weight of the second sum; the first has the rest."""
BLANK_CONTRAST = 4.0
"""Grey levels; a picture that varies less shows nothing to label."""
UNREAL = 4.0
"""Robust standard deviations below the median logit of the discriminator."""
DUPLICATE = 0.2
"""A near duplicate is closer than this many times the median distance between neighbours."""


@dataclass(frozen=True)
class Ranking:
    """What has been seen of N candidates, in the order they were drawn.

    `textures` [N, K]: share of each picture that shows each texture; `place` [N, D]: where it lies
    in feature space; `contrast` [N], `realism` [N]: see `failed`. With an ensemble, else None:
    `uncertainty` [N], mean over the picture; `unsure` [N, K], the same by texture (their sum).
    """

    ids: tuple[str, ...]
    textures: Floats
    place: Floats
    contrast: Floats
    realism: Floats
    uncertainty: Floats | None = None
    unsure: Floats | None = None


def read_ranking(artifact: Artifact, candidates: Artifact) -> Ranking:
    """The table of a `ranking` or `reranking` of these candidates. InputMissing if it is none."""
    with well_formed(artifact):
        document = read_json(artifact, "ranking.json")
        if document["candidates"] != candidates.content_digest:
            raise ValueError("it is of other candidates")
        counts = {name: int(document[name]) for name in ("textures", "place")}
        if not all(0 <= count <= MAX_COLUMNS for count in counts.values()):
            raise ValueError(f"it has {counts} columns")
        spread = {"texture": counts["textures"], "place": counts["place"]}
        single = ["contrast", "realism"]
        if document["ensemble"]:
            spread["unsure"] = counts["textures"]
            single.append("uncertainty")
        names = [f"{name}{k}" for name, count in spread.items() for k in range(count)]
        try:
            table = read_parquet(artifact.read("ranking.parquet"), ["id", *single, *names])
        except ParquetError as error:
            raise InputMissing(f"{artifact.uri('ranking.parquet')}: {error}") from error

        def column(name: str) -> Floats:
            values = table.column(name).to_numpy().astype(np.float64)
            if name != "realism" and not np.isfinite(values).all():
                raise ValueError(f"{name} is not finite")
            return np.asarray(values)

        blocks = {
            name: np.stack([column(f"{name}{k}") for k in range(count)], axis=1)
            for name, count in spread.items()
        }
        ids = tuple(str(one) for one in table.column("id").to_pylist())
        if len(set(ids)) < len(ids):
            raise ValueError("it lists a candidate twice")
        return Ranking(
            ids=ids,
            textures=blocks["texture"],
            place=blocks["place"],
            contrast=column("contrast"),
            realism=column("realism"),
            uncertainty=column("uncertainty") if "unsure" in blocks else None,
            unsure=blocks.get("unsure"),
        )


def failed(ranking: Ranking) -> Bools:
    """Pictures that are no use to anyone, bool [N]: blank ones, and those that the discriminator
    finds far less real than the others (median and median absolute deviation of its logits)."""
    blank = ranking.contrast < BLANK_CONTRAST
    known = ranking.realism[np.isfinite(ranking.realism)]
    if len(known) < 2:
        return blank
    median = float(np.median(known))
    spread = 1.4826 * float(np.median(np.abs(known - median)))
    with np.errstate(invalid="ignore"):
        return np.asarray(blank | (ranking.realism < median - UNREAL * max(spread, 1e-9)))


def choose(
    ranking: Ranking,
    labelled: Collection[str],
    held_out: Collection[str],
    count: int | None = None,
) -> list[str]:
    """Candidates to label next to train on, best first; `count` of them or, if None, all.

    labelled  known already: what they show need not be shown again
    held_out  for val and test: never chosen, and near duplicates of them only when nothing else is
              left, as the test would measure what was learned by heart
    """
    chooser = _Chooser(ranking, labelled, held_out)
    free = int(chooser.free.sum())
    wanted = free if count is None else min(count, free)
    return [ranking.ids[chooser.next()] for _ in range(wanted)]


class _Chooser:
    """Chooses one candidate after the other."""

    def __init__(
        self, ranking: Ranking, labelled: Collection[str], held_out: Collection[str]
    ) -> None:
        known = np.isin(ranking.ids, list(labelled))
        apart = np.isin(ranking.ids, list(held_out)) & ~known
        self.free = ~known & ~apart
        self._place = ranking.place
        landmarks = _landmarks(len(ranking.ids))
        distances = np.stack([self._distance(j) for j in landmarks], axis=1)
        self._similar = 1.0 - distances / max(float(distances.max()), 1e-12)
        self._nearest = np.zeros(len(landmarks))
        self._duplicate = DUPLICATE * _typical_neighbour(distances, landmarks)
        # Last of all, but better than nothing.
        self._demoted = failed(ranking)
        for j in np.flatnonzero(apart):
            self._demoted |= self._distance(int(j)) < self._duplicate
        self._offers = ranking.textures if ranking.unsure is None else _evened(ranking)
        self._adds = ranking.textures
        self._shown = np.zeros(ranking.textures.shape[1])
        for j in np.flatnonzero(known):
            self._know(int(j))

    def next(self) -> int:
        """The number of the next one, which is free no more."""
        usable = self.free & ~self._demoted
        usable = usable if usable.any() else self.free
        worth = np.where(usable, self._gains(), -np.inf)
        chosen = int(np.argmax(worth))
        self.free[chosen] = False
        self._know(chosen)
        return chosen

    def _gains(self) -> Floats:
        """What each candidate adds: both sums as shares of what the best one adds, weighted."""
        shown = np.sqrt(self._shown + self._offers).sum(axis=1) - np.sqrt(self._shown).sum()
        spread = np.maximum(self._similar - self._nearest, 0.0).sum(axis=1)
        return np.asarray((1.0 - SPREAD) * _share(shown) + SPREAD * _share(spread))

    def _know(self, j: int) -> None:
        self._shown = self._shown + self._adds[j]
        self._nearest = np.maximum(self._nearest, self._similar[j])
        self._demoted = self._demoted | (self._distance(j) < self._duplicate)

    def _distance(self, j: int) -> Floats:
        """Of all candidates to one of them, in feature space."""
        return np.asarray(np.linalg.norm(self._place - self._place[j], axis=1))


def _share(gains: Floats) -> Floats:
    """As shares of the largest."""
    return gains / max(float(gains.max()), 1e-12)


def _landmarks(count: int) -> Sequence[int]:
    """Every n-th candidate, so that the table of distances stays small."""
    wanted = max(1, min(count, LANDMARKS, MAX_DISTANCES // max(count, 1)))
    return range(0, count, -(-count // wanted))


def _typical_neighbour(distances: Floats, landmarks: Sequence[int]) -> float:
    """Median distance of a landmark to the candidate that is nearest to it, 0 for a single one."""
    others = distances.copy()
    others[np.asarray(landmarks), np.arange(len(landmarks))] = np.inf
    nearest = others.min(axis=0)
    return float(np.median(nearest)) if np.isfinite(nearest).all() else 0.0


def _evened(ranking: Ranking) -> Floats:
    """The uncertain part of each texture, on the scale of the textures themselves: what an ensemble
    has learned makes all uncertainties small, and that alone must not make new images worthless."""
    assert ranking.unsure is not None
    mean = float(ranking.unsure.mean())
    return ranking.unsure * (float(ranking.textures.mean()) / mean if mean > 0 else 0.0)
