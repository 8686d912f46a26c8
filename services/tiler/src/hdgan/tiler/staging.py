"""Fetches the next slides in the background while one is being worked on."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from hdgan.core.slides import SlideFile
from hdgan.tiler.sources import (
    LocalSlide,
    fetch,
    free_bytes,
    is_remote,
    no_space,
    remove,
)

# How often a wait looks at the disk, which others fill and empty too.
POLL_SECONDS = 0.5


class _Closed(Exception):
    """The work is not wanted any more."""


class StagedSlide:
    """One slide that is or will be on this machine.

    Entering waits for it and gives a LocalSlide, or raises what went wrong with it; leaving
    removes its copy. Enter each one that was given, or its copy keeps its room. Whoever holds
    slides and enters another may have to wait for room that only leaving one of those makes: hold
    several only where different threads leave them, or ask `ready` first.
    """

    def __init__(self, staging: Staging, slide: SlideFile, folder: Path) -> None:
        self.slide = slide
        self._staging = staging
        self._folder = folder
        self._done = False
        self._local: LocalSlide | None = None
        self._error: Exception | None = None

    @property
    def ready(self) -> bool:
        """Whether entering would not wait."""
        return self._done

    def __enter__(self) -> LocalSlide:
        return self._staging._take(self)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._staging._release(self)


class Staging:
    """The slides of `staged`, in their order. Iterate once; from any thread, enter from any."""

    def __init__(
        self, slides: Sequence[SlideFile], folder: Path, budget_bytes: int, ahead: int
    ) -> None:
        self._folder = folder
        self._budget = budget_bytes
        self._ahead = ahead
        self._items = [
            StagedSlide(self, slide, folder / f"slide-{number:05d}")
            for number, slide in enumerate(slides)
        ]
        self._given = 0  # handed to the caller
        self._held: dict[StagedSlide, int] = {}  # bytes of scratch each has or will have
        self._bytes_read = 0
        self._stopped = False
        self._change = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="staging", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[StagedSlide]:
        while True:
            with self._change:
                if self._stopped or self._given == len(self._items):
                    return
                item = self._items[self._given]
                self._given += 1
                self._change.notify_all()
            yield item

    @property
    def bytes_read(self) -> int:
        """Bytes of slides that have been read so far to get and check them."""
        return self._bytes_read

    def close(self) -> None:
        """Stop fetching, wait for the thread and remove every copy."""
        with self._change:
            self._stopped = True
            self._change.notify_all()
        self._thread.join()
        for item in self._items:
            remove(item._folder)
        self._held.clear()

    def _work(self) -> None:
        for number, item in enumerate(self._items):
            local: LocalSlide | None = None
            error: Exception | None = None
            try:
                self._wait_for_turn(number)
                self._wait_for_room(item)
                local = fetch(item.slide, item._folder, self._watch)
            except _Closed:
                return
            except Exception as problem:  # any: it is for whoever enters the slide
                error = problem
                remove(item._folder)
            with self._change:
                if error is not None:
                    self._held.pop(item, None)
                item._local, item._error, item._done = local, error, True
                self._change.notify_all()

    def _watch(self, count: int) -> None:
        if self._stopped:
            raise _Closed
        self._bytes_read += count

    def _wait_for_turn(self, number: int) -> None:
        """Until this slide is near enough to those the caller has got."""
        with self._change:
            self._change.wait_for(lambda: self._stopped or number < self._given + self._ahead)
            if self._stopped:
                raise _Closed

    def _wait_for_room(self, item: StagedSlide) -> None:
        """Until budget and disk have room for the slide, or nothing else can be given up for it."""
        if not is_remote(item.slide):
            return
        size = item.slide.total_size
        with self._change:
            while not self._stopped:
                free = free_bytes(self._folder)
                if not self._held:
                    if free < size:
                        raise no_space(item.slide, self._folder, free)
                    break
                if sum(self._held.values()) + size <= self._budget and size <= free:
                    break
                self._change.wait(POLL_SECONDS)
            if self._stopped:
                raise _Closed
            self._held[item] = size

    def _take(self, item: StagedSlide) -> LocalSlide:
        with self._change:
            self._change.wait_for(lambda: self._stopped or item._done)
            if item._error is not None:
                raise item._error
            if item._local is None or self._stopped:
                raise RuntimeError("the staging this slide belongs to was closed")
            return item._local

    def _release(self, item: StagedSlide) -> None:
        remove(item._folder)
        with self._change:
            item._local = None
            self._held.pop(item, None)
            self._change.notify_all()


@contextmanager
def staged(
    slides: Sequence[SlideFile], folder: Path, budget_bytes: int, *, ahead: int = 1
) -> Iterator[Staging]:
    """Slides one after another, the next ones fetched while the caller works.

        with staged(slides, folder, budget_bytes) as coming:
            for item in coming:
                with item as local:
                    ...

    folder: on scratch, for copies of remote slides; local ones are checked and read in place.
    budget_bytes: copies there together have at most so many bytes; a single slide always may, if
    the disk holds it, else NoSpace at that slide. ahead: slides fetched beyond those handed out.

    What goes wrong with a slide is raised where it is entered, and only there. After the block no
    copy and no thread is left, however it ends; a copy under way is waited for.
    """
    staging = Staging(slides, folder, budget_bytes, ahead)
    try:
        yield staging
    finally:
        staging.close()
