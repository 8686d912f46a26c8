"""Slides fetched ahead: in order, within the room there is, and nothing left behind."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hdgan.core.errors import NoSpace
from hdgan.core.slides import Companion, SlideFile, SlideSnapshot, take_snapshot
from hdgan.core.store import open_store
from hdgan.tiler import sources, staging
from hdgan.tiler.slide import SlideError
from hdgan.tiler.staging import Staging, staged

SIZE = 1000


def remote(folder: Path, count: int, size: int = SIZE) -> list[SlideFile]:
    """Slides in a store that is a folder, with addresses as those of an object store have."""
    store = open_store(folder.as_uri())
    found = []
    for number in range(count):
        key = f"s{number}.svs"
        store.put(key, bytes([number]) * size)
        info = store.head(key)
        assert info is not None
        found.append(SlideFile(name=key, uri=store.url(key), size=info.size, version=info.etag))
    return found


def eventually(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + 5
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.005)
    return False


def on_scratch(folder: Path) -> int:
    """Bytes there; a file may go while they are counted."""
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_size if path.is_file() else 0
    return total


def nothing_left(folder: Path) -> bool:
    threads = [one.name for one in threading.enumerate()]
    return on_scratch(folder) == 0 and "staging" not in threads


def test_slides_come_in_order_and_the_next_one_is_fetched_meanwhile(tmp_path: Path) -> None:
    slides, scratch = remote(tmp_path / "store", 4), tmp_path / "scratch"
    with staged(slides, scratch, 10 * SIZE) as coming:
        for number, item in enumerate(coming):
            assert item.slide == slides[number]
            with item as local:
                assert local.path.read_bytes() == bytes([number]) * SIZE
                # two of them: this one and the next, never the one after
                expected = SIZE * min(2, 4 - number)
                assert eventually(lambda want=expected: on_scratch(scratch) == want)  # type: ignore[misc]
                time.sleep(0.02)
                assert on_scratch(scratch) == expected
            assert not local.path.exists()
        assert coming.bytes_read == 4 * SIZE
    assert nothing_left(scratch)


def test_the_budget_holds_and_one_slide_is_always_allowed(tmp_path: Path) -> None:
    slides, scratch = remote(tmp_path / "store", 3), tmp_path / "scratch"
    with staged(slides, scratch, SIZE // 2, ahead=3) as coming:
        for item in coming:
            with item:
                time.sleep(0.05)
                assert on_scratch(scratch) == SIZE
    assert nothing_left(scratch)


@pytest.mark.parametrize("budget", [3 * SIZE, 5 * SIZE])
def test_several_at_once_stay_within_the_budget(
    tmp_path: Path, budget: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    slides, scratch = remote(tmp_path / "store", 12), tmp_path / "scratch"
    here: set[Path] = set()  # kept by hand: a look at the disk is no snapshot of it
    most, seen, lock, ledger = 0, [], threading.Lock(), threading.Lock()

    def fetching(slide: SlideFile, folder: Path, watch: sources.Watch) -> sources.LocalSlide:
        nonlocal most
        with ledger:
            here.add(folder)
            most = max(most, len(here) * SIZE)
        return sources.fetch(slide, folder, watch)

    def removing(folder: Path) -> None:
        sources.remove(folder)
        with ledger:
            here.discard(folder)

    monkeypatch.setattr(staging, "fetch", fetching)
    monkeypatch.setattr(staging, "remove", removing)
    with staged(slides, scratch, budget, ahead=4) as coming:
        items = iter(coming)

        def work() -> None:
            while True:
                with lock:
                    item = next(items, None)
                if item is None:
                    return
                with item as local:
                    seen.append(local.path.read_bytes()[0])
                    time.sleep(0.01)

        workers = [threading.Thread(target=work) for _ in range(3)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(20)
            assert not worker.is_alive()
    assert sorted(seen) == list(range(12))
    assert 2 * SIZE <= most <= budget
    assert nothing_left(scratch)


def test_an_error_is_raised_at_its_slide_only(tmp_path: Path) -> None:
    slides, scratch = remote(tmp_path / "store", 3), tmp_path / "scratch"
    (tmp_path / "store" / "s1.svs").unlink()
    reached = []
    with staged(slides, scratch, 10 * SIZE) as coming:
        for item in coming:
            if item.slide.name == "s1.svs":
                with pytest.raises(SlideError, match="no longer"), item:
                    pass
                continue
            with item as local:
                reached.append(local.path.read_bytes()[0])
    assert reached == [0, 2]
    assert nothing_left(scratch)


def test_a_slide_the_disk_cannot_hold_is_no_space_there_and_waits_for_room_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slides, scratch = remote(tmp_path / "store", 3), tmp_path / "scratch"
    disk = 3 * SIZE // 2
    monkeypatch.setattr(staging, "free_bytes", lambda folder: disk - on_scratch(scratch))
    huge = slides[1].model_copy(update={"size": 10 * SIZE})
    with staged([slides[0], huge, slides[2]], scratch, 100 * SIZE) as coming:
        for item in coming:
            if item.slide is huge:
                with pytest.raises(NoSpace, match=f"{10 * SIZE} bytes"), item:
                    pass
                continue
            with item:
                assert on_scratch(scratch) == SIZE
    assert nothing_left(scratch)


@pytest.mark.parametrize("how", ["break", "raise", "at once"])
def test_stopping_leaves_no_file_and_no_thread(tmp_path: Path, how: str) -> None:
    slides, scratch = remote(tmp_path / "store", 4), tmp_path / "scratch"

    def use() -> None:
        with staged(slides, scratch, 10 * SIZE, ahead=3) as coming:
            if how == "at once":
                return
            for item in coming:
                with item:
                    if how == "raise":
                        raise KeyboardInterrupt
                    break

    if how == "raise":
        with pytest.raises(KeyboardInterrupt):
            use()
    else:
        use()
    assert nothing_left(scratch)


def test_stopping_ends_a_digest_that_is_being_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slides, scratch = remote(tmp_path / "store", 1, size=3_000_000), tmp_path / "scratch"
    monkeypatch.setattr(sources, "CHUNK", 1)
    watch = Staging._watch

    def slowly(self: Staging, count: int) -> None:
        time.sleep(1e-4)
        watch(self, count)

    monkeypatch.setattr(Staging, "_watch", slowly)
    with staged(slides, scratch, 10 * SIZE) as coming:
        assert eventually(lambda: coming.bytes_read > 0)
    assert coming.bytes_read < 3_000_000
    assert nothing_left(scratch)


def test_local_slides_are_read_in_place_whatever_the_budget(tmp_path: Path) -> None:
    for name in ("a.svs", "b.svs"):
        (tmp_path / name).write_bytes(name.encode())
    slides = take_snapshot(str(tmp_path)).slides
    (tmp_path / "b.svs").write_bytes(b"changed")
    with staged(slides, tmp_path / "scratch", 0) as coming:
        first, second = coming
        with first as local:
            assert local.path == tmp_path / "a.svs"
            with pytest.raises(SlideError, match="changed since"), second:
                pass
    assert (tmp_path / "a.svs").exists()
    assert nothing_left(tmp_path / "scratch")


def test_all_files_of_a_slide_count_and_are_removed(tmp_path: Path) -> None:
    store = open_store((tmp_path / "store").as_uri())
    parts = []
    for name in ("m.mrxs", "m/Data0000.dat", "m/Slidedat.ini"):
        store.put(name, name.encode())
        info = store.head(name)
        assert info is not None
        parts.append(Companion(name=name, size=info.size, version=info.etag))
    slide = SlideFile(
        name="m.mrxs",
        uri=store.url("m.mrxs"),
        size=parts[0].size,
        version=parts[0].version,
        companions=tuple(parts[1:]),
    )
    scratch = tmp_path / "scratch"
    with staged(SlideSnapshot(uri="", slides=[slide]).slides, scratch, SIZE) as coming:
        for item in coming:
            with item as local:
                assert (
                    local.path.with_suffix("") / "Slidedat.ini"
                ).read_bytes() == b"m/Slidedat.ini"
                assert on_scratch(scratch) == slide.total_size == 6 + 14 + 14
    assert nothing_left(scratch)
