"""How far the tiler is, in tiles, while the size of slides not yet opened can only be guessed."""

from __future__ import annotations


class Progress:
    """Counts tiles over slides; a slide not yet seen counts like the mean of those seen."""

    def __init__(self, slides: int) -> None:
        self._left = slides
        self._seen = 0
        self._tiles = 0

    def within(self, done: int, total: int) -> tuple[int, int]:
        """(tiles examined so far, tiles expected) with `done` of `total` of the current slide."""
        return self._tiles + done, self._expected(self._tiles + total, self._seen + 1)

    def finish(self, total: int) -> None:
        """The current slide is done; `total` is 0 for one that cannot be used."""
        self._tiles += total
        self._seen += 1
        self._left -= 1

    def now(self) -> tuple[int, int]:
        """(tiles examined so far, tiles expected) between two slides."""
        return self._tiles, self._expected(self._tiles, self._seen)

    def _expected(self, tiles: int, seen: int) -> int:
        slides = self._seen + self._left
        return tiles if not seen else tiles + (slides - seen) * tiles // seen
