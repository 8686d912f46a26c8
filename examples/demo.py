"""The demo: one real slide in, a labelled dataset and a report out, through the `hdgan` command.

`make demo` calls this. It types what a person would type, in the same order; only the expert is
replaced, by examples/standin_annotator.py. Everything is written below demo/.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from fetch_slide import FetchError, fetch
from prepare_demo import PrepareError, prepare

WAITING_FOR_ANNOTATIONS = 3
FAILED_INPUT = 66

EXAMPLES = Path(__file__).parent
HDGAN = Path(sys.executable).with_name("hdgan")


class StepFailed(Exception):
    """A command ended with an exit code that ends the demo, too. It has said why itself."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


class Steps:
    """Runs one command after the other and passes signals on to the one that is running.

    Ctrl-C reaches the command directly, from the terminal: here it is only kept from ending the
    demo before the command has saved its work.
    """

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = environment
        self._running: subprocess.Popen[bytes] | None = None
        self._signals: list[int] = []
        signal.signal(signal.SIGINT, self._remember)
        signal.signal(signal.SIGTERM, self._pass_on)

    def run(self, *command: str | Path, allowed: Sequence[int] = (0,)) -> int:
        """Run `command` and return its exit code; StepFailed for one that is not in `allowed`."""
        self._check_signals()
        self._running = subprocess.Popen([str(part) for part in command], env=self._environment)
        if signal.SIGTERM in self._signals:
            self._running.terminate()  # it came before there was a command to pass it on to
        code = self._running.wait()
        self._running = None
        if code < 0:
            raise StepFailed(128 - code)
        if code not in allowed:
            raise StepFailed(code)
        self._check_signals()
        return code

    def _check_signals(self) -> None:
        if self._signals:
            raise StepFailed(128 + self._signals[0])

    def _remember(self, number: int, _: FrameType | None) -> None:
        self._signals.append(number)

    def _pass_on(self, number: int, _: FrameType | None) -> None:
        self._signals.append(number)
        if self._running is not None:
            self._running.terminate()


def run_demo(folder: Path, slides: Path | None, from_scratch: bool) -> None:
    """Make everything in `folder` that is not there yet.

    Raises FetchError, PrepareError or StepFailed; what was finished stays, and is found again.
    """
    run_file = folder / "run.yaml"
    dataset = folder / "dataset"
    report = folder / "report.html"
    if slides is None:
        fetch(folder / "slides" / "cmu_small_region.svs")
    prepare(run_file, slides=slides, from_scratch=from_scratch)

    temporary = folder / "tmp"
    temporary.mkdir(parents=True, exist_ok=True)
    # Store and scratch are where `hdgan` puts them by default: beside the run file.
    environment = {**os.environ, "TMPDIR": str(temporary.resolve())}
    for name in ("HDGAN_STORE", "HDGAN_SCRATCH"):
        environment.pop(name, None)
    steps = Steps(environment)
    make_dataset = (HDGAN, "run", run_file, "--dataset", dataset)
    try:
        if steps.run(*make_dataset, allowed=(0, WAITING_FOR_ANNOTATIONS)) != 0:
            _annotate(steps, run_file, temporary)
            steps.run(*make_dataset)
        steps.run(HDGAN, "report", run_file, "--out", report)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    _say(f"\nDataset: {dataset}\nReport:  {report} (open it in a browser)")


def _annotate(steps: Steps, run_file: Path, temporary: Path) -> None:
    """Have the stand-in label the candidates, by the way a person would take."""
    _say("There is no expert on this machine: the stand-in annotator labels by stain.")
    exported, masks = temporary / "candidates", temporary / "masks"
    for left_over in (exported, masks):
        shutil.rmtree(left_over, ignore_errors=True)
    steps.run(HDGAN, "annotations", "export", run_file, exported)
    steps.run(sys.executable, EXAMPLES / "standin_annotator.py", exported, masks)
    steps.run(HDGAN, "annotations", "import", run_file, masks)


def _say(message: str) -> None:
    # Flushed, so that it does not end up after what the next command prints.
    print(message, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="The whole pipeline on a real slide.")
    parser.add_argument("--out", type=Path, default=Path("demo"), help="default: demo")
    parser.add_argument("--slides", type=Path, help="folder with your own slides")
    parser.add_argument("--from-scratch", action="store_true", help="train from noise: hours")
    options = parser.parse_args(arguments)
    try:
        run_demo(options.out, options.slides, options.from_scratch)
    except (FetchError, PrepareError) as error:
        sys.stderr.write(f"demo: {error}\n")
        return FAILED_INPUT
    except StepFailed as failure:
        return failure.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
