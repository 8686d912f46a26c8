"""What the rooms' pyproject.toml say an image needs, so that no second list has to be kept.

    python3 images/rooms.py list                every image
    python3 images/rooms.py rooms extractor     the room and those of ours below it, lowest first
    python3 images/rooms.py packages extractor  its third-party packages, without those rooms' own
    python3 images/rooms.py version extractor

Standard library only: it runs in the base image, before anything is installed.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
OURS = "hdgan-"
LIBRARIES = ("core", "nets")
"""Rooms that others import and that nobody starts: no image of their own."""


def folder_of(room: str, root: Path = ROOT) -> Path:
    """Where the room is."""
    for place in (root / "services" / room, root / "k8s" / room):
        if (place / "pyproject.toml").is_file():
            return place
    raise SystemExit(f"images/rooms.py: there is no room {room!r} in services/ or k8s/")


def images(root: Path = ROOT) -> list[str]:
    """Every room that has an image."""
    found = [*root.glob("services/*/pyproject.toml"), *root.glob("k8s/*/pyproject.toml")]
    return sorted({path.parent.name for path in found} - {*LIBRARIES})


def rooms(room: str, root: Path = ROOT) -> list[str]:
    """`room` and the rooms it depends on, each after those it needs itself."""
    found: list[str] = []
    for dependency in _dependencies(room, root):
        name = _name(dependency)
        if name.startswith(OURS):
            found += [one for one in rooms(name.removeprefix(OURS), root) if one not in found]
    return [*found, room]


def packages(room: str, root: Path = ROOT) -> list[str]:
    """Requirements of the room itself that are not ours, as pip takes them."""
    return [one for one in _dependencies(room, root) if not _name(one).startswith(OURS)]


def version(room: str, root: Path = ROOT) -> str:
    """Version of the room's distribution."""
    return str(_project(room, root)["version"])


def _dependencies(room: str, root: Path) -> list[str]:
    return [str(one) for one in _project(room, root).get("dependencies", [])]


def _project(room: str, root: Path) -> dict[str, Any]:
    project: dict[str, Any] = tomllib.loads(
        (folder_of(room, root) / "pyproject.toml").read_text("utf-8")
    )["project"]
    return project


def _name(requirement: str) -> str:
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    if match is None:
        raise SystemExit(f"images/rooms.py: cannot read the requirement {requirement!r}")
    return re.sub(r"[-_.]+", "-", match[0]).lower()


def main(arguments: list[str]) -> None:
    """Print what was asked for, one a line."""
    match arguments:
        case ["list"]:
            print(*images(), sep="\n")
        case ["rooms", room]:
            print(*rooms(room), sep="\n")
        case ["packages", room]:
            print(*packages(room), sep="\n")
        case ["version", room]:
            print(version(room))
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
