"""Which samples of the global batch a process works on, and in which pieces. Pure functions.

The images of a minibatch-standard-deviation group always stay together, so the discriminator
compares the same images however many processes share the batch.
"""

from __future__ import annotations

from hdgan.core.errors import RequestError


def discriminator_pieces(
    batch: int, group: int, rank: int, world: int, most: int | None
) -> list[list[int]]:
    """Pieces of the batch that `rank` of `world` processes works on one after the other.

    Group j of the global batch holds samples j, j + J, j + 2 J, ... with J = batch / group; a piece
    lists its samples so that the same rule, applied to the piece alone, finds the same groups.

    Args:
        batch: images in the global batch.
        group: images in a minibatch-standard-deviation group; `min(batch, group)` divides `batch`.
        most: most images in a piece, a multiple of the group; None: no limit.

    Raises:
        RequestError: more processes than groups.
    """
    group = min(batch, group)
    groups = batch // group
    if world > groups:
        raise RequestError(
            f"{world} processes cannot share a batch of {batch} images: the {groups} groups of "
            f"{group} that the discriminator compares stay together. Use at most {groups} "
            "processes, a larger ganTrainer.batch, or a smaller ganTrainer.minibatchStdGroup"
        )
    mine = range(rank * groups // world, (rank + 1) * groups // world)
    at_once = len(mine) if most is None else max(1, most // group)
    return [
        [first + member * groups for member in range(group) for first in mine[start:end]]
        for start, end in _chunks(len(mine), at_once)
    ]


def even_pieces(count: int, rank: int, world: int, most: int | None) -> list[list[int]]:
    """Samples 0 .. count - 1, dealt evenly: the pieces of `rank`, each of at most `most` samples.

    A rank may get none when there are more processes than samples.
    """
    mine = list(range(rank * count // world, (rank + 1) * count // world))
    at_once = len(mine) if most is None else max(1, most)
    return [mine[start:end] for start, end in _chunks(len(mine), at_once)]


def _chunks(count: int, size: int) -> list[tuple[int, int]]:
    return [(start, min(start + size, count)) for start in range(0, count, max(size, 1))]
