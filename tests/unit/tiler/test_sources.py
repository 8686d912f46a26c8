"""Slides from an object store: copied, checked, hashed and removed again."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from hdgan.core.slides import SlideFile, take_snapshot
from hdgan.core.store import open_store
from hdgan.tiler.slide import SlideError
from hdgan.tiler.sources import identity, local_slide, name_clashes
from support.s3_server import new_bucket, point_aws_at, running_s3


def test_remote_slides_are_copied_hashed_and_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_s3() as endpoint:
        point_aws_at(endpoint, monkeypatch)
        uri = f"s3://{new_bucket(endpoint)}/slides"
        store = open_store(uri)
        store.put("deep/a 1.svs", b"content")
        store.put("b.mrxs", b"x")
        slide, multi = sorted(take_snapshot(uri).slides, key=lambda s: s.name, reverse=True)
        with local_slide(slide, tmp_path / "s") as local:
            assert local.path.read_bytes() == b"content"
            assert local.path.suffix == ".svs"
            assert local.sha256 == hashlib.sha256(b"content").hexdigest()
        assert list((tmp_path / "s").iterdir()) == []

        with pytest.raises(SlideError, match="several files"), local_slide(multi, tmp_path):
            pass
        store.put("deep/a 1.svs", b"another")
        with pytest.raises(SlideError, match="changed since"), local_slide(slide, tmp_path / "s"):
            pass
        store.delete("deep/a 1.svs")
        with pytest.raises(SlideError, match="no longer"), local_slide(slide, tmp_path / "s"):
            pass
        assert list((tmp_path / "s").iterdir()) == []


def test_local_slides_are_read_in_place_and_checked(tmp_path: Path) -> None:
    path = tmp_path / "a.svs"
    path.write_bytes(b"content")
    (slide,) = take_snapshot(str(tmp_path)).slides
    with local_slide(slide, tmp_path / "scratch") as local:
        assert local.path == path
    path.write_bytes(b"longer content")
    with pytest.raises(SlideError, match="changed since"), local_slide(slide, tmp_path):
        pass
    path.unlink()
    with pytest.raises(SlideError, match="cannot be read"), local_slide(slide, tmp_path):
        pass


def test_identity_follows_content_and_survives_a_moved_folder() -> None:
    def slide(uri: str, version: str = "1") -> SlideFile:
        return SlideFile(name="a.svs", uri=uri, size=7, version=version)

    assert identity(slide("/here/a.svs")) == identity(slide("/there/a.svs"))
    assert identity(slide("/here/a.svs")) != identity(slide("/here/a.svs", "2"))
    assert identity(slide("s3://one/a.svs")) != identity(slide("s3://two/a.svs"))


def test_clashing_tile_names_are_found_whatever_their_case() -> None:
    slides = [SlideFile(name=n, uri=n, size=1, version="") for n in ("a.svs", "A.tif", "b.svs")]
    prefixes = {"a.svs": "a", "A.tif": "A", "b.svs": "b"}
    assert name_clashes(slides, prefixes) == {"A.tif": "a.svs"}
