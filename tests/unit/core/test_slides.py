"""The snapshot of slides: what is found, and what changes its digest."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from hdgan.core.errors import InputMissing, RequestError
from hdgan.core.initial_networks import FILES, networks_digest
from hdgan.core.slides import Companion, load_snapshot, save_snapshot, take_snapshot
from hdgan.core.store import open_store


def slide(path: Path, content: bytes = b"slide", time: int = 10**18) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, ns=(time, time))


def test_slides_are_found_by_suffix_in_a_stable_order(tmp_path: Path) -> None:
    for name in ("b.svs", "a/c.TIFF", "a/notes.txt", ".hidden/x.svs", "._b.svs"):
        slide(tmp_path / name)
    snapshot = take_snapshot(str(tmp_path))
    assert [item.name for item in snapshot.slides] == ["a/c.TIFF", "b.svs"]
    assert snapshot.slides[1].uri == str(tmp_path / "b.svs")
    assert take_snapshot(tmp_path.as_uri()).digest == snapshot.digest
    assert [item.name for item in take_snapshot(str(tmp_path / "b.svs")).slides] == ["b.svs"]


def test_companions_of_a_slide_are_no_slides_of_their_own(tmp_path: Path) -> None:
    for name in (
        "m.mrxs",
        "m/Slidedat.ini",
        "m/Data0000.dat",
        "m/preview.jpg",
        "m/.hidden",
        "n.mrxs",
        "n/other.svs",  # no Slidedat.ini: an ordinary folder
        "photo.jpg",
        "v/h.vmu",
    ):
        slide(tmp_path / name)
    listed = b"[Virtual Microscope Specimen]\r\nNoLayers=1\r\nImageFile=h.jpg\r\n"
    listed += b"ImageFile(1,0)=h (1,0).jpg\r\nMapFile=h_map.jpg\r\nMacroImage=../photo.jpg\r\n"
    slide(tmp_path / "v/h.vms", listed)
    for name in ("h.jpg", "h (1,0).jpg", "h_map.jpg", "other.jpg"):
        slide(tmp_path / "v" / name)
    found = {item.name: item for item in take_snapshot(str(tmp_path)).slides}
    expected = ["m.mrxs", "n.mrxs", "n/other.svs", "photo.jpg", "v/h.vms", "v/h.vmu", "v/other.jpg"]
    assert list(found) == expected
    of_m = ["m/Data0000.dat", "m/Slidedat.ini", "m/preview.jpg"]
    of_v = ["h (1,0).jpg", "h.jpg", "h_map.jpg"]
    assert [one.name for one in found["m.mrxs"].companions] == of_m
    assert [one.name for one in found["v/h.vms"].companions] == of_v
    assert not found["n.mrxs"].companions
    # Named alone, a slide has the same companions, and so the same identity.
    for name, companions in (("m.mrxs", of_m), ("v/h.vms", of_v), ("n.mrxs", ["n/other.svs"])):
        (alone,) = take_snapshot(str(tmp_path / name)).slides
        assert [one.name for one in alone.companions] == (companions if name[0] != "n" else [])
    store = open_store((tmp_path / "store").as_uri())
    snapshot = take_snapshot(str(tmp_path / "m.mrxs"))
    assert load_snapshot(store, save_snapshot(store, snapshot)) == snapshot
    before = snapshot.digest
    slide(tmp_path / "m/Data0000.dat", b"longer than before")
    assert take_snapshot(str(tmp_path / "m.mrxs")).digest != before


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "a/../../x", "a//b", "a\\b", "."])
def test_a_companion_stays_below_its_slides_folder(name: str) -> None:
    with pytest.raises(ValidationError):
        Companion(name=name, size=1, version="1")


def test_a_list_of_companions_that_is_no_list_is_refused(tmp_path: Path) -> None:
    slide(tmp_path / "big.vms", bytes(5 << 20))
    with pytest.raises(RequestError, match=r"big\.vms has 5242880 bytes, far more than a list"):
        take_snapshot(str(tmp_path))


@pytest.mark.parametrize("suffix", [".png", ".JPG", ".jpeg", ".btf", ".tf8", ".tf2", ".ome.tiff"])
def test_plain_pictures_and_big_tiffs_are_slides(tmp_path: Path, suffix: str) -> None:
    slide(tmp_path / f"a{suffix}")
    assert [item.name for item in take_snapshot(str(tmp_path)).slides] == [f"a{suffix}"]


def test_a_name_that_is_no_utf_8_is_refused_by_name(tmp_path: Path) -> None:
    try:
        slide(Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.svs")))
    except OSError:
        pytest.skip("this file system has only UTF-8 names")
    with pytest.raises(RequestError, match=r"caf\\udce9\.svs' is not UTF-8: rename"):
        take_snapshot(str(tmp_path))


def test_the_digest_follows_name_size_and_time_and_not_the_folder(tmp_path: Path) -> None:
    first = tmp_path / "one"
    slide(first / "a.svs")
    digest = take_snapshot(str(first)).digest
    moved = first.rename(tmp_path / "two")
    assert take_snapshot(str(moved)).digest == digest
    slide(moved / "a.svs", time=10**18 + 1)
    later = take_snapshot(str(moved)).digest
    slide(moved / "a.svs", content=b"other!")
    larger = take_snapshot(str(moved)).digest
    slide(moved / "b.svs")
    assert len({digest, later, larger, take_snapshot(str(moved)).digest}) == 4


@pytest.mark.parametrize("name", ["nowhere", "nowhere.svs", "empty", "empty/notes.txt"])
def test_where_there_is_no_slide_the_error_says_so(tmp_path: Path, name: str) -> None:
    slide(tmp_path / "empty/notes.txt")
    with pytest.raises(RequestError, match=r"slides\.uri"):
        take_snapshot(str(tmp_path / name))


def test_a_snapshot_comes_back_from_the_store_and_follows_a_move(tmp_path: Path) -> None:
    store = open_store((tmp_path / "store").as_uri())
    slide(tmp_path / "one/a.svs")
    first = take_snapshot(str(tmp_path / "one"))
    assert load_snapshot(store, save_snapshot(store, first)) == first
    (tmp_path / "one").rename(tmp_path / "two")
    second = take_snapshot(str(tmp_path / "two"))
    assert load_snapshot(store, save_snapshot(store, second)).slides[0].uri.endswith("two/a.svs")
    with pytest.raises(InputMissing, match="start the run again"):
        load_snapshot(store, "work/slides/none.json")


def test_a_snapshot_that_was_changed_is_refused(tmp_path: Path) -> None:
    store = open_store((tmp_path / "store").as_uri())
    slide(tmp_path / "one/a.svs")
    key = save_snapshot(store, take_snapshot(str(tmp_path / "one")))
    store.put(key, store.get(key).replace(b"a.svs", b"b.svs"))
    with pytest.raises(InputMissing, match=r"it was changed.*start the run again"):
        load_snapshot(store, key)


def test_initial_networks_are_known_by_content(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        for name in FILES:
            slide(tmp_path / folder / name, content=name.encode())
    digest = networks_digest(str(tmp_path / "a"))
    assert networks_digest(str(tmp_path / "b")) == digest
    slide(tmp_path / "b" / FILES[2], content=b"trained further")
    assert networks_digest(str(tmp_path / "b")) != digest
    (tmp_path / "b" / FILES[1]).unlink()
    with pytest.raises(RequestError, match=r"discriminator\.safetensors does not exist"):
        networks_digest(str(tmp_path / "b"))
