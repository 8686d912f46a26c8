"""The checks after a scenario see each kind of damage."""

from __future__ import annotations

import hashlib
import json

import pytest

from faults import checks

KEY = "a" * 64
FOLDER = f"artifacts/tiler/{KEY}"
ATTEMPT = "20260101T000000Z-00000000"


def store() -> dict[str, bytes]:
    """An artifact of one file, and what lies beside it."""
    entry = {
        "name": "tiles.bin",
        "size": 5,
        "sha256": hashlib.sha256(b"tiles").hexdigest(),
        "attempt": ATTEMPT,
    }
    manifest = {"contentDigest": "c" * 64, "files": [entry]}
    return {
        f"{FOLDER}/manifest.json": json.dumps(manifest).encode(),
        f"{FOLDER}/{ATTEMPT}/tiles.bin": b"tiles",
        f"{FOLDER}/{ATTEMPT}/run-info.json": b"{}",
        f"work/gan-trainer/{KEY}/{ATTEMPT}/state-000000000001.json": b"{}",
        "runs/cut/status.json": b"{}",
        f"datasets/cut/pointer/00000001-{'0' * 16}.json": b"{}",
        f"artifacts/tiler/{KEY}/{ATTEMPT}/.hdgan-tmp-1": b"half a doc",
        "datasets/cut/releases/.hdgan-tmp-2": b"{",
    }


def test_a_whole_store_is_all_right() -> None:
    assert list(checks.damaged(store())) == []
    assert checks.digests(store()) == {f"tiler/{KEY}": "c" * 64}


@pytest.mark.parametrize(
    ("place", "data", "said"),
    [
        (f"{FOLDER}/{ATTEMPT}/tiles.bin", b"tilez", "is not what"),
        (f"{FOLDER}/{ATTEMPT}/tiles.bin", b"tile", "is not what"),
        (f"{FOLDER}/{ATTEMPT}/tiles.bin", None, "which is not there"),
        (f"{FOLDER}/manifest.json", b'{"contentDig', "is no JSON"),
        ("runs/cut/status.json", b"", "is no JSON"),
        ("reports/cut/report.html", b"<!doctype html><p>half", "is no whole report"),
        (f"artifacts/tiler/{KEY}/left.bin", b"x", "is nothing that is known"),
        ("artifacts/tiler/short/manifest.json", b"{}", "is nothing that is known"),
        ("elsewhere", b"x", "is nothing that is known"),
    ],
)
def test_damage_is_named(place: str, data: bytes | None, said: str) -> None:
    objects = store()
    if data is None:
        del objects[place]
    else:
        objects[place] = data
    (found,) = checks.damaged(objects)
    assert place in found
    assert said in found


def test_attempts_writers_and_notes_of_collections_do_not_tell_stores_apart() -> None:
    other = {
        key.replace(ATTEMPT, "20270101T000000Z-ffffffff").replace("0" * 16, "f" * 16): data
        for key, data in store().items()
    }
    other[f"gc/marks/work-{KEY}.json"] = b"{}"
    other["reports/cut/report.html"] = b"<!doctype html>\n<!-- shows this -->\n"
    other[f"pins/cut/use-{KEY}.json"] = b"{}"
    assert checks.kinds_of(other) == checks.kinds_of(store())
    assert checks.kinds_of({**other, "runs/cut/more.json": b""}) != checks.kinds_of(store())
