"""`make test-faults`: scenarios of many seeds, a line each, and a table.

python -m faults [--scenarios 200] [--seed 0] [--jobs 2]
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from faults import undisturbed
from faults.carrying_out import carry_out
from faults.scenarios import Scenario, scenario
from faults.world import TESTS

SKIPPED = "skipped: "


def main() -> int:
    """The exit code: 1 if a scenario failed."""
    parser = argparse.ArgumentParser(prog="faults", description="Many seeded faults.")
    parser.add_argument("--scenarios", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0, help="of the first scenario")
    parser.add_argument("--jobs", type=int, default=2, help="scenarios at the same time")
    parser.add_argument("--folder", type=Path, help="default: a new one, kept if something fails")
    parser.add_argument("--plan", action="store_true", help="only say what would be done")
    parser.add_argument("--one", type=Path, metavar="BASE", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        return _one(options.seed, options.one, options.folder)
    planned = [scenario(options.seed + number) for number in range(options.scenarios)]
    if options.plan:
        for one in planned:
            print(f"{one.seed:>5}  {one}")
        return 0
    folder = options.folder or Path(tempfile.mkdtemp(prefix="hdgan-faults-"))
    base = folder.absolute() / "undisturbed"
    if not (base / "undisturbed.json").exists():
        _make_undisturbed(base)
    failed = _all(planned, base, options.jobs)
    if failed:
        print(f"What failed is kept in {folder}.")
    elif options.folder is None:
        shutil.rmtree(folder)
    return 1 if failed else 0


def _make_undisturbed(base: Path) -> None:
    from support.demo_slide import demo_slide, write_cut

    started = time.monotonic()
    (base / "slides").mkdir(parents=True)
    write_cut(demo_slide(base), base / "slides" / "cut.tiff")
    made = undisturbed.make(base)
    print(f"undisturbed run: {len(made.digests)} artifacts, {time.monotonic() - started:.0f} s")


def _all(planned: list[Scenario], base: Path, jobs: int) -> int:
    """Carry them out, each in a process of its own; returns how many failed."""
    started = time.monotonic()
    outcomes: Counter[tuple[str, str]] = Counter()
    failed = []
    with ThreadPoolExecutor(jobs) as pool:
        for one, (said, seconds) in zip(
            planned, pool.map(lambda one: in_process(one, base, base.parent), planned), strict=True
        ):
            word = "ok" if said.startswith("ok") else said.split(":")[0]
            outcomes[one.kind, word] += 1
            print(f"{one.seed:>5}  {seconds:5.1f} s  {one}: {said}", flush=True)
            if word not in ("ok", "skipped"):
                failed.append(one.seed)
                print(f"       again: make test-faults SCENARIOS=1 SEED={one.seed}", flush=True)
    print()
    for kind in dict.fromkeys(one.kind for one in planned):
        counts = [f"{outcomes[kind, w]} {w}" for w in ("ok", "FAILED", "skipped")]
        print(f"  {kind:<34} {', '.join(c for c in counts if not c.startswith('0 '))}")
    total = sum(count for (_, word), count in outcomes.items() if word == "ok")
    print(
        f"{total} of {len(planned)} scenarios ended as the undisturbed run,"
        f" {time.monotonic() - started:.0f} s"
    )
    return len(failed)


def in_process(one: Scenario, base: Path, folder: Path) -> tuple[str, float]:
    """Carry a scenario out in a process of its own.

    base    where the undisturbed run is
    folder  where the scenario gets a folder, which stays if it fails

    Returns what it says (`ok (...)`, `FAILED: ...` or `skipped: ...`) and the seconds it took.
    """
    started = time.monotonic()
    before: list[str] = []
    if one.space is not None and one.proxy is None:
        before = private_mounts()
        if not before:
            return f"{SKIPPED}small disks cannot be mounted here", 0.0
    words = [sys.executable, "-m", "faults", "--one", str(base), "--seed", str(one.seed)]
    paths = (os.environ.get("PYTHONPATH"), str(TESTS), str(TESTS.parent / "examples"))
    ended = subprocess.run(
        [*before, *words, "--folder", str(folder)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
        capture_output=True,
        text=True,
        check=False,
    )
    said = ended.stdout.strip().splitlines()
    words_said = said[-1] if said and ended.returncode in (0, 1) else f"FAILED: {ended.stderr}"
    return words_said, time.monotonic() - started


def private_mounts() -> list[str]:
    """What to put before a command so that it may mount, unseen by all others; [] if nothing."""
    for words in (["unshare", "--mount"], ["unshare", "--user", "--map-root-user", "--mount"]):
        with contextlib.suppress(OSError), tempfile.TemporaryDirectory() as place:
            mount = ["mount", "-t", "tmpfs", "-o", "size=65536", "hdgan-faults", place]
            if subprocess.run([*words, *mount], capture_output=True, check=False).returncode == 0:
                return words
    return []


def _one(seed: int, base: Path, folder: Path) -> int:
    place = folder / f"seed-{seed}"
    shutil.rmtree(place, ignore_errors=True)
    outcome = carry_out(scenario(seed), undisturbed.load(base), place)
    notes = ", ".join(_counted(outcome.notes))
    if outcome.problem is None:
        shutil.rmtree(place)
        print(f"ok ({notes})")
        return 0
    (place / "problem.txt").write_text(f"{outcome.scenario}\n{notes}\n{outcome.problem}\n")
    print(f"FAILED: {json.dumps(outcome.problem[:1500])} ({notes})")
    return 1


def _counted(notes: tuple[str, ...]) -> Iterator[str]:
    """Equal ones in a row as one."""
    for note, equal in itertools.groupby(notes):
        count = len(list(equal))
        yield note if count == 1 else f"{count} times {note}"


if __name__ == "__main__":
    sys.exit(main())
