"""Actors that share a store and do one store operation at a time, in an order a test chooses."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any


class Killed(BaseException):
    """Raised inside an actor that is killed: like a process that dies, it runs no more code."""


class Actor:
    """A function in a thread that stands still before each store operation until `step`."""

    def __init__(self, name: str, work: Callable[[SteppedStore], None], store: Any) -> None:
        self.name = name
        self.done = False
        self.failure: BaseException | None = None
        self.before = ""
        """The operation it stands before."""
        self.hours_asleep = 0.0
        """Since its last operation."""
        self._killed = False
        self._go = threading.Semaphore(0)
        self._parked = threading.Semaphore(0)
        self._thread = threading.Thread(
            target=self._run, args=(work, SteppedStore(store, self)), daemon=True
        )
        self._thread.start()
        self._parked.acquire()

    def step(self) -> None:
        """Let it do the operation it stands before, and go on to the next one."""
        assert not self.done
        self.hours_asleep = 0.0
        self._go.release()
        self._parked.acquire()

    def finish(self) -> None:
        while not self.done:
            self.step()

    def kill(self) -> None:
        if not self.done:
            self._killed = True
            self._go.release()
            self._parked.acquire()
        self._thread.join()

    def gate(self, operation: str) -> None:
        """Called by the actor's store before each operation."""
        if self._killed:
            raise Killed  # code that runs while a dead process is unwound touches nothing
        self.before = operation
        self._parked.release()
        self._go.acquire()
        if self._killed:
            raise Killed

    def _run(self, work: Callable[[SteppedStore], None], store: SteppedStore) -> None:
        try:
            work(store)
        except Killed:
            pass
        except BaseException as error:
            self.failure = error
        finally:
            self.done = True
            self._parked.release()


class SteppedStore:
    """A store whose every operation waits for its actor's turn."""

    def __init__(self, store: Any, actor: Actor) -> None:
        self._store = store
        self._actor = actor
        self.uri = store.uri

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if not callable(found) or name in ("url", "close"):
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            self._actor.gate(f"{name} {args[0] if args else ''}")
            return found(*args, **kwargs)

        return call

    def list(self, prefix: str) -> Iterator[str]:
        """A listing is taken at one moment."""
        self._actor.gate(f"list {prefix}")
        yield from list(self._store.list(prefix))

    def unfinished(self, prefix: str = "") -> Iterator[Any]:
        self._actor.gate(f"unfinished {prefix}")
        yield from list(self._store.unfinished(prefix))

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """In two operations where the store has no conditional write: it looks, then writes."""
        self._actor.gate(f"put_if_absent {key}")
        if getattr(self._store, "conditional", True):
            created: bool = self._store.put_if_absent(key, data)
            return created
        if self._store.head(key) is not None:
            return False
        self._actor.gate(f"put {key}")
        self._store.put(key, data)
        return True
