"""The demo's driver types the commands in order, skips the expert's turn when nobody waits for it,
and ends with the exit code of what failed."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import demo

FAKE_HDGAN = """#!{python}
import os, pathlib, sys
root = pathlib.Path(__file__).parent
with (root / "typed").open("a") as log:
    log.write(" ".join(sys.argv[1:3]) + "\\n")
codes = (root / "codes").read_text().split()
(root / "codes").write_text(" ".join(codes[1:]))
assert "HDGAN_STORE" not in os.environ
if codes[0] == "stop":
    os.kill(os.getppid(), {term})
    import time
    time.sleep(60)
sys.exit(int(codes[0]))
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with an `hdgan` that logs what it was told and ends with the next of `codes`."""
    hdgan = tmp_path / "hdgan"
    hdgan.write_text(FAKE_HDGAN.format(python=sys.executable, term=int(signal.SIGTERM)))
    hdgan.chmod(0o755)
    (tmp_path / "standin_annotator.py").write_text("")
    monkeypatch.setattr(demo, "HDGAN", hdgan)
    monkeypatch.setattr(demo, "EXAMPLES", tmp_path)
    monkeypatch.setattr(demo, "fetch", lambda destination: False)
    monkeypatch.setattr(demo, "prepare", lambda run_file, **_: None)
    monkeypatch.setenv("HDGAN_STORE", "file:///elsewhere")
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield tmp_path
    for number, handler in handlers.items():
        signal.signal(number, handler)


def typed(folder: Path, codes: str) -> tuple[int, list[str]]:
    """Exit code of the demo and the words each hdgan command began with."""
    (folder / "codes").write_text(codes)
    code = demo.main(["--out", str(folder / "demo")])
    lines = (folder / "typed").read_text().splitlines()
    return code, [line.replace(f"{folder}{os.sep}", "") for line in lines]


def test_expert_is_replaced_when_the_run_waits(folder: Path) -> None:
    assert typed(folder, "3 0 0 0 0") == (
        0,
        [
            "run demo/run.yaml",
            "annotations export",
            "annotations import",
            "run demo/run.yaml",
            "report demo/run.yaml",
        ],
    )
    assert not (folder / "demo" / "tmp").exists()


def test_finished_run_is_only_looked_at(folder: Path) -> None:
    assert typed(folder, "0 0") == (0, ["run demo/run.yaml", "report demo/run.yaml"])


@pytest.mark.parametrize("codes", ["70", "3 64", "3 0 0 3"])
def test_failure_ends_the_demo_with_its_exit_code(folder: Path, codes: str) -> None:
    code, lines = typed(folder, codes)
    assert code == int(codes.split()[-1])
    assert len(lines) == len(codes.split())


def test_sigterm_is_passed_on_and_ends_the_demo(folder: Path) -> None:
    assert typed(folder, "stop 0 0") == (128 + signal.SIGTERM, ["run demo/run.yaml"])
