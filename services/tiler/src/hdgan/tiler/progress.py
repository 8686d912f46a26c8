"""How far the tiler is, in tiles, while the size of slides not yet opened can only be guessed."""

from __future__ import annotations


class Progress:
    """Counts places over slides; a slide not yet seen counts like the mean of those seen."""

    def __init__(self, slides: int) -> None:
        self._slides = slides
        self._finished = 0
        self._done = 0
        self._at_work: dict[str, tuple[int, int]] = {}

    def within(self, name: str, done: int, total: int) -> None:
        """`done` of the `total` places of a slide are examined."""
        self._at_work[name] = (done, total)

    def finish(self, name: str, total: int) -> None:
        """A slide is done; `total` is 0 for one that cannot be used."""
        self._at_work.pop(name, None)
        self._finished += 1
        self._done += total

    def now(self) -> tuple[int, int]:
        """(places examined so far, places expected)."""
        examined = self._done + sum(done for done, _ in self._at_work.values())
        known = self._done + sum(total for _, total in self._at_work.values())
        seen = self._finished + len(self._at_work)
        return examined, known + ((self._slides - seen) * known // seen if seen else 0)
