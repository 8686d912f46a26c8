"""What can be seen of the images without building them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
WITHOUT_TORCH = {"tiler", "desk", "controller"}
ROOMS = [
    "classifier",
    "controller",
    "desk",
    "extractor",
    "gan-trainer",
    "synthesizer",
    "tiler",
]


def place(room: str) -> str:
    return f"{'k8s' if room == 'controller' else 'services'}/{room}"


def dockerfile(room: str) -> str:
    return (ROOT / place(room) / "Dockerfile").read_text()


def project(room: str) -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads((ROOT / place(room) / "pyproject.toml").read_text())
    found: dict[str, Any] = table["project"]
    return found


def instructions(room: str) -> list[str]:
    """The instructions, one a line, without comments."""
    text = dockerfile(room).replace("\\\n", "")
    lines = [" ".join(line.split()) for line in text.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def final_stage(room: str) -> list[str]:
    found = instructions(room)
    start = max(number for number, line in enumerate(found) if line.startswith("FROM"))
    return found[start:]


def test_every_room_that_is_started_has_an_image_and_nothing_else(rooms: dict[str, Any]) -> None:
    found = {path.parent.name for path in ROOT.glob("*/*/Dockerfile")}

    assert sorted(found) == rooms["images"]() == ROOMS


def entry_point(room: str) -> str:
    module = room.replace("-", "_")
    return '["hdgan"]' if room == "desk" else f'["python", "-m", "hdgan.{module}"]'


@pytest.mark.parametrize("room", ROOMS)
def test_dockerfiles_differ_in_the_room_alone(room: str) -> None:
    """So that all share the layers they have in common, and one change is made in all of them."""
    model = "tiler" if room in WITHOUT_TORCH else "extractor"

    assert instructions(room) == [
        f"ENTRYPOINT {entry_point(room)}"
        if line.startswith("ENTRYPOINT")
        else line.replace(project(model)["description"], project(room)["description"])
        .replace(place(model), place(room))
        .replace(model, room)
        for line in instructions(model)
    ]


def test_images_with_torch_add_one_block_to_those_without() -> None:
    without = [line.replace("tiler", "extractor") for line in instructions("tiler")]
    more = [line for line in instructions("extractor") if line not in without]

    description = project("extractor")["description"]
    assert [line for line in more if description not in line] == [
        "ARG TORCH=torch",
        "ARG TORCH_INDEX",
        "COPY services/nets/pyproject.toml services/nets/",
        "RUN --mount=type=secret,id=pip --mount=type=secret,id=ca "
        "python3 images/layer.py packages nets",
        "COPY services/nets services/nets",
        "COPY --from=build /layers/nets/ /",
    ]


@pytest.mark.parametrize("room", ROOMS)
def test_layers_are_those_of_the_rooms_that_pyproject_names(
    room: str, rooms: dict[str, Any]
) -> None:
    needed = rooms["rooms"](room)
    built = re.findall(r"layer\.py packages (\S+)", dockerfile(room))
    copied = re.findall(r"COPY --from=build /layers/(\S+)/ /", dockerfile(room))
    sources = [line.split()[1] for line in instructions(room) if re.match(r"COPY \S+/\S+ ", line)]

    assert built == needed
    assert copied == [*needed, "code"]
    assert [one for one in sources if (ROOT / one / "src").is_dir()] == [
        place(one) for one in needed
    ]
    assert ("nets" in needed) == (room not in WITHOUT_TORCH)


@pytest.mark.parametrize("room", [*ROOMS, "core", "nets"])
def test_packages_come_from_pyproject_and_have_exact_versions(room: str) -> None:
    printed = subprocess.run(
        [sys.executable, "images/rooms.py", "packages", room],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()

    dependencies = project(room)["dependencies"]
    assert printed == [one for one in dependencies if not one.startswith("hdgan-")]
    pinned = {
        line.partition("==")[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
    }
    names = {re.split(r"[<>=]", one)[0].lower().replace("_", "-") for one in printed}
    assert names <= pinned


def test_images_without_torch_ask_for_none(rooms: dict[str, Any]) -> None:
    for room in ROOMS:
        packages = {one for below in rooms["rooms"](room) for one in rooms["packages"](below)}
        assert ("torch" in packages) == (room not in WITHOUT_TORCH)


@pytest.mark.parametrize("room", ROOMS)
def test_the_final_stage_runs_nothing_and_is_for_any_user(room: str) -> None:
    stage = final_stage(room)
    one = {line.split()[0]: line.split(maxsplit=1)[1] for line in stage}

    assert not [line for line in stage if line.startswith(("RUN", "ADD", "SHELL", "CMD"))]
    assert re.fullmatch(r"[1-9]\d*:0", one["USER"])
    assert isinstance(json.loads(one["ENTRYPOINT"]), list)  # exec form: no shell is PID 1
    assert one["ENV"].startswith("PATH=/opt/hdgan/bin:")


@pytest.mark.parametrize("room", ROOMS)
def test_labels_say_what_the_image_is(room: str) -> None:
    label = next(line for line in final_stage(room) if line.startswith("LABEL"))
    labels = dict(re.findall(r'org\.opencontainers\.image\.([a-z.]+)="([^"]*)"', label))

    assert labels == {
        "title": f"hdgan-{room}",
        "description": project(room)["description"],
        "licenses": project(room)["license"],
        "source": "${SOURCE}",
        "version": "${VERSION}",
        "revision": "${REVISION}",
        "created": "${CREATED}",
        "base.name": "${BASE_IMAGE}",
    }


def test_the_base_is_pinned_and_the_same_for_all() -> None:
    bases = {instructions(room)[0] for room in ROOMS}

    assert len(bases) == 1
    version = re.fullmatch(r"ARG BASE_IMAGE=\S+/python:3\.(\d+)\.\d+-slim-[a-z]+", bases.pop())
    assert version is not None
    assert int(version[1]) >= 11


def test_hadolint_has_nothing_to_say() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    files = [str(path) for path in sorted(ROOT.glob("*/*/Dockerfile"))]

    done = subprocess.run([hadolint, *files], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (0, "")


def test_only_what_is_copied_goes_to_the_engine() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]

    assert rules[0] == "*"
    allowed = {line[1:] for line in rules if line.startswith("!")}
    sources = {
        source
        for room in ROOMS
        for line in instructions(room)
        if line.startswith("COPY") and "--from" not in line
        for source in line.split()[1:-1]
    }
    assert all(
        any(source == one or source.startswith(f"{one}/") for one in allowed) for source in sources
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["tilr"], "there is no 'tilr'; there are classifier, controller"),
        (["--pip-conf", "nowhere"], "there is no file nowhere"),
        (["--engine", "cocker"], "invalid choice"),
    ],
)
def test_make_images_says_what_is_wrong(arguments: list[str], words: str) -> None:
    engine = [] if "--engine" in arguments else ["--engine", "buildah"]

    done = subprocess.run(
        [sys.executable, "images/build.py", *engine, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode != 0
    assert words in done.stderr


@pytest.mark.parametrize("name", ["TORCH_INDEX", "SOURCE"])
def test_credentials_are_no_build_arguments(name: str, tmp_path: Path) -> None:
    url = "https://alice:hunter2@packages.test/simple"
    engine = tmp_path / "podman"
    engine.write_text("#!/bin/sh\nexit 1\n")
    engine.chmod(0o755)
    arguments = ["--torch-index", url] if name == "TORCH_INDEX" else []
    environ = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    if name == "SOURCE":
        environ["SOURCE"] = url
    done = subprocess.run(
        [sys.executable, "images/build.py", "--engine", "podman", *arguments, "extractor"],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert f"{name} holds a user or password" in done.stderr
    assert "hunter2" not in done.stdout + done.stderr
