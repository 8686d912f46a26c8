"""Slides from an object store: copied, checked, hashed and removed again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from hdgan.core.errors import NoSpace
from hdgan.core.slides import SlideFile, SlideSnapshot, take_snapshot
from hdgan.core.store import open_store
from hdgan.tiler.opening import open_slide
from hdgan.tiler.slide import SlideError
from hdgan.tiler.sources import LocalSlide, described, identity, name_clashes
from hdgan.tiler.staging import staged
from support.s3_server import new_bucket, point_aws_at, running_s3
from support.slides import tissue_picture, write_vms


@contextmanager
def local_slide(slide: SlideFile, folder: Path) -> Iterator[LocalSlide]:
    with staged([slide], folder, 1 << 30) as coming:
        for item in coming:
            with item as local:
                yield local


def test_remote_slides_are_copied_hashed_and_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_s3() as endpoint:
        point_aws_at(endpoint, monkeypatch)
        uri = f"s3://{new_bucket(endpoint)}/slides"
        store = open_store(uri)
        store.put("deep/a 1.svs", b"content")
        store.put("b.mrxs", b"x")
        store.put("c.mrxs", b"c")
        store.put("c/Slidedat.ini", b"[GENERAL]")
        store.put("c/sub/Data0000.dat", b"pixels")
        lone, multi, slide = take_snapshot(uri).slides
        with local_slide(slide, tmp_path / "s") as local:
            assert local.path.read_bytes() == b"content"
            assert local.path.suffix == ".svs"
            assert local.sha256 == hashlib.sha256(b"content").hexdigest()
        assert list((tmp_path / "s").iterdir()) == []

        with pytest.raises(SlideError, match="several files"), local_slide(lone, tmp_path / "s"):
            pass
        assert [one.name for one in multi.companions] == ["c/Slidedat.ini", "c/sub/Data0000.dat"]
        with local_slide(multi, tmp_path / "s") as local:
            assert local.path.read_bytes() == b"c"
            assert local.path.name == "c.mrxs"
            assert (local.path.parent / "c/sub/Data0000.dat").read_bytes() == b"pixels"
            names = [("c.mrxs", b"c"), ("c/Slidedat.ini", b"[GENERAL]")]
            names += [("c/sub/Data0000.dat", b"pixels")]
            listed = json.dumps(
                [[name, hashlib.sha256(data).hexdigest()] for name, data in names],
                separators=(",", ":"),
            )
            assert local.sha256 == hashlib.sha256(listed.encode()).hexdigest()
        assert list((tmp_path / "s").iterdir()) == []
        store.put("c/sub/Data0000.dat", b"others")
        with pytest.raises(SlideError, match="changed since"), local_slide(multi, tmp_path / "s"):
            pass
        store.put("deep/a 1.svs", b"another")
        with pytest.raises(SlideError, match="changed since"), local_slide(slide, tmp_path / "s"):
            pass
        store.delete("deep/a 1.svs")
        with pytest.raises(SlideError, match="no longer"), local_slide(slide, tmp_path / "s"):
            pass
        assert list((tmp_path / "s").iterdir()) == []


def test_a_real_slide_of_several_files_is_one_slide_and_can_be_read_from_a_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = tissue_picture(1024, 512)
    path = write_vms(tmp_path / "local", picture)
    (found,) = take_snapshot(str(tmp_path / "local")).slides
    assert found.name == "h.vms"
    with running_s3() as endpoint:
        point_aws_at(endpoint, monkeypatch)
        uri = f"s3://{new_bucket(endpoint)}/slides"
        store = open_store(uri)
        for file in path.parent.iterdir():
            store.put_from(f"deep/{file.name}", file)
        (slide,) = take_snapshot(uri).slides
        assert slide.total_size == found.total_size
        assert take_snapshot(f"{uri}/deep/h.vms").slides[0].companions == slide.companions
        with staged([slide], tmp_path / "s", 0) as coming:
            for item in coming:
                with item as local, open_slide(local.path) as opened:
                    assert (opened.vendor, opened.mpp) == ("hamamatsu", (0.5, 0.5))
                    region = np.asarray(opened.read(0, 500, 100, 300, 300))[..., :3].astype(int)
                with local_slide(found, tmp_path / "s") as in_place:
                    assert in_place.sha256 == local.sha256
        assert np.abs(region - picture[100:400, 500:800]).mean() < 10
        assert list(tmp_path.glob("s/**/*.jpg")) == []
    (path.parent / "h.jpg").unlink()
    with pytest.raises(SlideError, match=r"other files|damaged"), open_slide(path):
        pass


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


def test_companions_in_place_are_checked_and_part_of_the_identity(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    (folder / "a").mkdir(parents=True)
    for name in ("a.mrxs", "a/Slidedat.ini", "a/Data0000.dat"):
        (folder / name).write_bytes(name.encode())
    (slide,) = take_snapshot(str(folder)).slides
    with local_slide(slide, tmp_path / "scratch") as local:
        assert local.path == folder / "a.mrxs"
    assert described(slide)["companions"][0]["name"] == "a/Data0000.dat"
    (folder / "a/Data0000.dat").write_bytes(b"other pixels")
    with pytest.raises(SlideError, match="changed since"), local_slide(slide, tmp_path):
        pass
    (changed,) = take_snapshot(str(folder)).slides
    assert identity(changed) != identity(slide)
    assert take_snapshot(str(folder)).digest != SlideSnapshot(uri="", slides=[slide]).digest


def test_identities_of_slides_of_one_file_are_those_of_earlier_versions() -> None:
    here = SlideFile(name="a/b.svs", uri="/x/a/b.svs", size=7, version="1")
    far = SlideFile(name="b.svs", uri="s3://k/a/b.svs", size=7, version="e")

    def digest(text: str) -> str:
        return hashlib.sha256(text.encode()).hexdigest()

    assert identity(here) == digest('["a/b.svs",7,"1"]')
    assert identity(far) == digest('["s3://k/a/b.svs",7,"e"]')
    snapshot = SlideSnapshot(uri="/x", slides=[here, far])
    assert snapshot.digest == digest('[["a/b.svs",7,"1"],["s3://k/a/b.svs",7,"e"]]')
    assert described(here) == {"name": "a/b.svs", "size": 7, "version": "1"}


def test_a_disk_too_small_is_said_before_anything_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slide = SlideFile(name="b.svs", uri="s3://k/a/b.svs", size=7, version="e")
    monkeypatch.setattr("hdgan.tiler.staging.free_bytes", lambda folder: 6)
    with (
        pytest.raises(NoSpace, match=r"7 bytes, .* has 6 free"),
        local_slide(slide, tmp_path / "s"),
    ):
        pass
    assert not (tmp_path / "s").exists()


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
