"""A random order of so many things that a list of it would be too long: each place is computed."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

ROUNDS = 6

Integers = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]


def random_order(places: Integers, count: int, seed: np.random.SeedSequence) -> Integers:
    """What stands at these places of a random order of 0 .. count - 1.

    A Feistel network over the next even number of bits, walked until the result is below `count`
    (Black and Rogaway, Ciphers with Arbitrary Finite Domains, CT-RSA 2002, section 5).

    Args:
        places: int64 [N], each 0 .. count - 1.
        seed: names the order.

    Returns:
        int64 [N]; all places together give every number once.
    """
    half = max(1, ((count - 1).bit_length() + 1) // 2)
    keys = seed.generate_state(ROUNDS, np.uint64).astype(np.uint64)
    found = _network(places.astype(np.uint64), keys, half)
    while len(beyond := np.flatnonzero(found >= count)):
        found[beyond] = _network(found[beyond], keys, half)
    return found.astype(np.int64)


def _network(values: Words, keys: Words, half: int) -> Words:
    """A permutation of the numbers of 2 * half bits."""
    bits, mask = np.uint64(half), np.uint64((1 << half) - 1)
    left, right = values >> bits, values & mask
    for key in keys:
        left, right = right, left ^ (_mixed(right ^ key) & mask)
    return (left << bits) | right


def _mixed(words: Words) -> Words:
    """Every bit of the result depends on every bit of the word (finaliser of SplitMix64: Steele,
    Lea and Flood, Fast Splittable Pseudorandom Number Generators, OOPSLA 2014, figure 16)."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
