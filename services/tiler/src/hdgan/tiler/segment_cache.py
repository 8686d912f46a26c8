"""Decoded pieces of a file, the last used ones kept, each decoded once whoever asks for it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future

from hdgan.tiler.pixels import Pixels


class SegmentCache:
    """At most `max_bytes` of arrays that nobody is using; the one just asked for is always there.

    For several threads: one decodes, others that want the same piece wait for it.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._kept: OrderedDict[Hashable, Pixels] = OrderedDict()
        self._coming: dict[Hashable, Future[Pixels]] = {}
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, key: Hashable, decode: Callable[[], Pixels]) -> Pixels:
        """The piece under `key`, from memory or by `decode`, whose errors every asker gets."""
        with self._lock:
            kept = self._kept.get(key)
            if kept is not None:
                self._kept.move_to_end(key)
                return kept
            coming = self._coming.get(key)
            if coming is None:
                mine: Future[Pixels] = Future()
                self._coming[key] = mine
        if coming is not None:
            return coming.result()
        try:
            pixels = decode()
        except BaseException as error:
            with self._lock:
                del self._coming[key]
            mine.set_exception(error)
            raise
        with self._lock:
            del self._coming[key]
            self._keep(key, pixels)
        mine.set_result(pixels)
        return pixels

    def _keep(self, key: Hashable, pixels: Pixels) -> None:
        if pixels.nbytes > self.max_bytes // 2:
            self._kept.clear()
            self._bytes = 0
        self._kept[key] = pixels
        self._bytes += pixels.nbytes
        while self._bytes > self.max_bytes and len(self._kept) > 1:
            _, dropped = self._kept.popitem(last=False)
            self._bytes -= dropped.nbytes
