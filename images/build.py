"""Builds the container images with docker, podman or buildah, and says how large they are.

    python3 images/build.py --registry registry.example.org --tag 0.1.0 [tiler desk ...]

`make images` calls it; docs/images.md explains the options. Standard library only.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import rooms

LABELLED = {"CREATED", "REVISION", "SOURCE", "VERSION"}
ENGINES = ("docker", "podman", "buildah")


def main() -> None:
    """Build the images that were asked for, one after the other."""
    options = _options()
    engine = options.engine or _detect()
    wanted = options.rooms or rooms.images()
    for room in wanted:
        if room not in rooms.images():
            raise SystemExit(f"images: there is no {room!r}; there are {', '.join(rooms.images())}")
    about = _about()
    built = []
    for room in wanted:
        name = image_name(room, options.registry, options.tag)
        command = build_command(engine, room, name, options, about)
        print(shlex.join(command), flush=True)
        # BuildKit: the Dockerfiles mount pip's configuration as secrets.
        ended = subprocess.run(
            command, cwd=rooms.ROOT, env={**os.environ, "DOCKER_BUILDKIT": "1"}, check=False
        )
        if ended.returncode != 0:
            raise SystemExit(f"images: {engine} could not build {name}: see above")
        built.append(name)
    print()
    for name in built:
        print(f"{_size(engine, name):>10}  {name}")


def image_name(room: str, registry: str | None, tag: str | None) -> str:
    """What the image is called, e.g. registry.example.org/hdgan-tiler:0.1.0."""
    return f"{registry or 'localhost'}/hdgan-{room}:{tag or rooms.version(room)}"


def build_command(
    engine: str, room: str, name: str, options: argparse.Namespace, about: dict[str, str]
) -> list[str]:
    """What is typed to build one image."""
    arguments = {**about, "VERSION": rooms.version(room)}
    if options.base_image:
        arguments["BASE_IMAGE"] = options.base_image
    if "nets" in rooms.rooms(room):
        # Only where it is declared: engines warn about others.
        if options.torch:
            arguments["TORCH"] = options.torch
        if options.torch_index:
            arguments["TORCH_INDEX"] = options.torch_index
    refuse_credentials(arguments)
    dockerfile = rooms.folder_of(room).relative_to(rooms.ROOT) / "Dockerfile"
    command = [engine, "build", "-f", str(dockerfile), "-t", name]
    if engine == "buildah":
        command.append("--layers")
    if options.platform:
        command += ["--platform", options.platform]
    for key, value in arguments.items():
        command += ["--build-arg", f"{key}={value}"]
    # Once more: buildah takes a LABEL it has cached, whatever the arguments in it are by now.
    for key in sorted(arguments.keys() & LABELLED):
        command += ["--label", f"org.opencontainers.image.{key.lower()}={arguments[key]}"]
    for secret, file in (("pip", options.pip_conf), ("ca", options.ca)):
        if file:
            command += ["--secret", f"id={secret},src={file}"]
    return [*command, *shlex.split(options.engine_args), "."]


def refuse_credentials(arguments: dict[str, str]) -> None:
    """Build arguments and labels are in the image's history, its provenance and on the screen."""
    for name, value in sorted(arguments.items()):
        if re.search(r"://[^/\s]*@", value):
            raise SystemExit(
                f"images: {name} holds a user or password, which would be readable with the image: "
                "leave it out; those of package indexes belong into the file PIP_CONF names"
            )


def _about() -> dict[str, str]:
    """Where the sources are from, by git; unknown where there is none."""
    revision = _git("rev-parse", "HEAD")
    if revision is None:
        return {}
    if _git("status", "--porcelain", "--untracked-files=no"):
        revision += "-dirty"
    seconds = int(os.environ.get("SOURCE_DATE_EPOCH") or _git("log", "-1", "--format=%ct") or 0)
    about = {
        "REVISION": revision,
        "CREATED": f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}",
    }
    source = os.environ.get("SOURCE")
    return {**about, "SOURCE": source} if source else about


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=rooms.ROOT, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _detect() -> str:
    """The first engine that is here and answers: a docker without its daemon builds nothing."""
    for engine in ENGINES:
        if shutil.which(engine) is None:
            continue
        asked = subprocess.run([engine, "info"], capture_output=True, timeout=60, check=False)
        if asked.returncode == 0:
            return engine
    raise SystemExit(
        "images: neither docker (with a daemon), podman nor buildah is here: install one of them"
    )


def _size(engine: str, name: str) -> str:
    if engine == "buildah":
        found = json.loads(_output("buildah", "images", "--json", name))
        return str(found[0]["size"])
    size = int(_output(engine, "image", "inspect", "--format", "{{.Size}}", name))
    return f"{size / 1e6:.0f} MB"


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, usage=argparse.SUPPRESS)
    parser.add_argument("rooms", nargs="*")
    parser.add_argument("--engine", choices=("", *ENGINES))
    parser.add_argument("--registry")
    for name in ("tag", "base-image", "torch", "torch-index", "platform"):
        parser.add_argument(f"--{name}")
    for name in ("pip-conf", "ca"):
        parser.add_argument(f"--{name}", type=_file)
    parser.add_argument("--engine-args", default="")
    return parser.parse_args()


def _file(value: str) -> str | None:
    if value and not Path(value).is_file():
        raise argparse.ArgumentTypeError(f"there is no file {value}")
    return value or None


if __name__ == "__main__":
    main()
