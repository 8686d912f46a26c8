"""One shard of a dataset: a pure function of (generator, ensemble, seed, shard number, rule)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from concurrent.futures import Executor

from hdgan.core.errors import DataError
from hdgan.nets.latents import draw_acceptance
from hdgan.synthesizer.calibration import AcceptanceRule
from hdgan.synthesizer.pair import Encoding, Pair, PairMaker
from hdgan.synthesizer.sampling import SHARD_SPAN

# A shard that needs this many times the draws the calibration predicts will never fill: the
# calibration no longer describes the generator.
MAX_DRAWS_FACTOR = 20


@dataclasses.dataclass(frozen=True)
class Place:
    """How far a shard is: draws that are done with, and pairs they gave."""

    draws: int = 0
    pairs: int = 0


def fill_shard(
    maker: PairMaker,
    number: int,
    size: int,
    rule: AcceptanceRule,
    start: Place,
    pause: Callable[[], bool],
    threads: Executor,
    rejected: Callable[[str], None] = lambda reason: None,
) -> Iterator[tuple[Place, Pair | None]]:
    """What each draw of shard `number` gave, in the order of its own sub-stream, from `start` on.

    Ends with `size` pairs, or after a draw at which `pause` said so; either way everything that was
    begun has been given out. While a pair is encoded (in `threads`) the next sample is made; not
    more than one pair waits. `rejected` is told why an image is left out: `uncertain` or `quota`.

    Raises:
        DataError: hardly any image is kept.
    """
    limit = int(MAX_DRAWS_FACTOR * (size + 10) / rule.expected_acceptance)
    waiting: tuple[Place, Encoding] | None = None
    place = start
    while place.pairs < size and not pause():
        if place.draws >= limit:
            raise DataError(_too_few(number, place, rule))
        pixels = maker.label(number * SHARD_SPAN + place.draws)
        probability = rule.probability(pixels.measured)
        kept = _drawn(maker, pixels.sample.index) < probability
        place = Place(place.draws + 1, place.pairs + kept)
        if waiting is not None:
            yield waiting[0], waiting[1].pair()
            waiting = None
        if kept:
            waiting = place, maker.encode(pixels, probability, threads)
        else:
            rejected("quota" if probability else "uncertain")
            yield place, None
        del pixels
    if waiting is not None:
        yield waiting[0], waiting[1].pair()


def _drawn(maker: PairMaker, index: int) -> float:
    return draw_acceptance(maker.sampler.seed, maker.sampler.stream, index)


def _too_few(number: int, place: Place, rule: AcceptanceRule) -> str:
    return (
        f"shard {number}: only {place.pairs} of {place.draws} images were kept (uncertainty at "
        f"most {rule.max_uncertainty:g}{', quotas' if rule.quotas else ''}; calibration predicted "
        f"{rule.expected_acceptance:.3g}): raise synthesizer.calibration, or lower "
        "synthesizer.dropMostUncertain or the quotas"
    )


def shard_sizes(count: int, shard_size: int) -> list[int]:
    """Pairs in each shard: all full but possibly the last."""
    full, rest = divmod(count, shard_size)
    return [shard_size] * full + ([rest] if rest else [])
