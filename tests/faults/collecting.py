"""What `hdgan gc` says about a store, and what is left when it has removed all it wants to."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from faults.checks import kinds_of
from faults.commands import Problem
from faults.undisturbed import Undisturbed
from faults.world import World
from support.small_pipeline import HDGAN

MOST_ROUNDS = 8


def collect(world: World) -> None:
    """Have everything removed that is garbage. Problem where something cannot be explained, there
    is no end of it, or something else is left than after the undisturbed run."""
    _collect_all(world.store_uri, world.honest)
    left = kinds_of(world.objects())
    expected = _left_undisturbed(world.undisturbed)
    lost, more = sorted(expected - left), sorted(left - expected)
    if lost:
        raise Problem(f"hdgan gc has removed what the undisturbed run keeps: {lost[:10]}")
    if more:
        raise Problem(f"hdgan gc leaves what the undisturbed run has not: {more[:10]}")
    if world.unfinished():
        raise Problem(f"hdgan gc leaves unfinished uploads: {world.unfinished()[:10]}")


def gc(store: str, environ: Mapping[str, str], *options: str) -> dict[str, Any]:
    """What it says. Problem if it fails or knows not what something is."""
    typed = subprocess.run(
        [HDGAN, "gc", "--store", store, "--json", *options],
        env={n: v for n, v in os.environ.items() if not n.startswith("AWS_")} | dict(environ),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    if typed.returncode != 0:
        raise Problem(f"hdgan gc {options} ended with {typed.returncode}: {typed.stderr[-2000:]}")
    said: dict[str, Any] = json.loads(typed.stdout)
    if said["unknown"]:
        raise Problem(f"hdgan gc finds what it cannot explain: {said['unknown'][:10]}")
    return said


def _collect_all(store: str, environ: Mapping[str, str]) -> None:
    said = gc(store, environ)  # as a person would look first
    for _ in range(MOST_ROUNDS):
        if not said["garbage"] and not said["unfinished"]:
            return
        said = gc(store, environ, "--delete", "--grace-hours", "0")
    left = said["garbage"] + said["unfinished"]
    raise Problem(f"hdgan gc never comes to an end: {left[:5]}")


def _left_undisturbed(undisturbed: Undisturbed) -> set[str]:
    """Kinds of objects that are left of the undisturbed run's store, worked out once."""
    known = undisturbed.run.folder / "collected.json"
    if not known.exists():
        copy = undisturbed.run.folder / f"collected-{os.getpid()}"
        shutil.copytree(undisturbed.run.store, copy)
        _collect_all(copy.as_uri(), {})
        kinds = sorted(kinds_of(_files(copy)))
        shutil.rmtree(copy)
        unready = known.with_suffix(f".{os.getpid()}")
        unready.write_text(json.dumps(kinds))
        unready.replace(known)
    return set(json.loads(known.read_text()))


def _files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): b"" for path in folder.rglob("*") if path.is_file()
    }
