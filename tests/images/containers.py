"""Runs images as a cluster does: read-only, as a user nobody has heard of, our process as PID 1.

With docker or podman by their `run`; buildah's `run` cannot do it, so that what it has built is
started by an OCI runtime (crun or runc) from a bundle made here.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ANY_USER = 1_000_650_000
"""As OpenShift gives them: a number no image has a name for, in group 0."""
NAMESPACES = ("pid", "ipc", "uts", "mount", "network")


class NoEngineError(Exception):
    """Nothing here can run images."""


@dataclass
class Started:
    """A container at work."""

    process: subprocess.Popen[str]
    kill: list[str]
    """The command that sends a signal to its PID 1, but for the signal."""

    def signal(self, name: str) -> None:
        subprocess.run([*self.kill, name], check=True, capture_output=True, timeout=60)

    def finish(self, timeout: float = 120) -> Ended:
        try:
            out, err = self.process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self.signal("KILL")
            out, err = self.process.communicate()
            raise AssertionError(f"still there after {timeout} s:\n{out}\n{err}") from None
        return Ended(self.process.returncode, out, err)


@dataclass(frozen=True)
class Ended:
    """What a container left behind."""

    code: int
    out: str
    err: str

    def last_event(self) -> dict[str, Any]:
        event: dict[str, Any] = json.loads(self.out.splitlines()[-1])
        return event


@dataclass(frozen=True)
class How:
    """How a container is started."""

    arguments: Sequence[str] = ()
    """After the entry point of the image."""
    command: Sequence[str] = ()
    """Instead of the entry point, as the Jobs do it."""
    environ: Mapping[str, str] = field(default_factory=dict)
    user: int | None = ANY_USER
    """None: the image's own."""
    mounts: Sequence[Path] = ()
    """Folders of this machine that are there under the same names, writable."""


class Engine:
    """One of docker, podman and buildah."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self._folder = folder
        self._roots: dict[str, tuple[str, Path]] = {}
        self._runtime: list[str] = []
        if name == "buildah":
            found = shutil.which("runc") or shutil.which("crun")
            if found is None:
                raise NoEngineError("buildah builds, but neither crun nor runc is here to run it")
            # Nothing here limits memory or cores, and not every machine lets cgroups be made.
            no_cgroups = ["--cgroup-manager=disabled"] if found.endswith("crun") else []
            self._runtime = [found, *no_cgroups]

    def config(self, image: str) -> dict[str, Any]:
        """The image's configuration: Env, Entrypoint, Labels, User, WorkingDir."""
        if self.name == "buildah":
            text = _output("buildah", "inspect", "--type", "image", image)
            config: dict[str, Any] = json.loads(text)["OCIv1"]["config"]
        else:
            config = json.loads(_output(self.name, "image", "inspect", image))[0]["Config"]
        return config

    @contextlib.contextmanager
    def start(self, image: str, how: How) -> Iterator[Started]:
        """Start a container; it is gone when the block ends."""
        name = f"hdgan-test-{uuid.uuid4().hex[:12]}"
        if self.name == "buildah":
            bundle = self._bundle(name, image, how)
            command = [*self._runtime, "run", "--bundle", str(bundle), name]
            kill = [*self._runtime, "kill", name]
            remove = [*self._runtime, "delete", "--force", name]
        else:
            command = [self.name, "run", "--name", name, *self._options(how), image]
            command += [*how.command[1:], *how.arguments]
            kill = [self.name, "kill", name, "--signal"]
            remove = [self.name, "rm", "--force", name]
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            yield Started(process, kill)
        finally:
            subprocess.run(remove, capture_output=True, timeout=120, check=False)
            process.kill()
            process.wait()
            for stream in (process.stdout, process.stderr):
                assert stream is not None
                stream.close()

    def run(self, image: str, how: How, timeout: float = 120) -> Ended:
        with self.start(image, how) as started:
            return started.finish(timeout)

    def close(self) -> None:
        for container, _ in self._roots.values():
            subprocess.run(["buildah", "rm", container], capture_output=True, check=False)

    @staticmethod
    def _options(how: How) -> list[str]:
        options = ["--read-only", "--tmpfs", "/tmp", "--network", "none", "--cap-drop", "ALL"]
        if how.user is not None:
            options += ["--user", f"{how.user}:0"]
        if how.command:
            options += ["--entrypoint", how.command[0]]
        for name, value in how.environ.items():
            options += ["--env", f"{name}={value}"]
        for folder in how.mounts:
            options += ["--volume", f"{folder}:{folder}"]
        return options

    def _root(self, image: str) -> Path:
        if image not in self._roots:
            container = _output("buildah", "from", "--pull-never", image).strip()
            self._roots[image] = (container, Path(_output("buildah", "mount", container).strip()))
        return self._roots[image][1]

    def _bundle(self, name: str, image: str, how: How) -> Path:
        config = self.config(image)
        user, _, group = config["User"].partition(":")
        environ = dict(one.split("=", 1) for one in config["Env"]) | dict(how.environ)
        tmpfs = ["nosuid", "nodev", "mode=1777"]
        mounts = [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": tmpfs},
            {"destination": "/tmp", "type": "tmpfs", "source": "tmp", "options": tmpfs},
            *(
                {
                    "destination": str(folder),
                    "type": "bind",
                    "source": str(folder),
                    "options": ["rbind", "rw"],
                }
                for folder in how.mounts
            ),
        ]
        document = {
            "ociVersion": "1.0.0",
            "process": {
                "user": {
                    "uid": int(user) if how.user is None else how.user,
                    "gid": int(group) if how.user is None else 0,
                },
                "args": [*(how.command or config["Entrypoint"]), *how.arguments],
                "env": [f"{key}={value}" for key, value in environ.items()],
                "cwd": config.get("WorkingDir") or "/",
                "noNewPrivileges": True,
            },
            "root": {"path": str(self._root(image)), "readonly": True},
            "hostname": "test",
            "mounts": mounts,
            "linux": {"namespaces": [{"type": one} for one in NAMESPACES]},
        }
        bundle = self._folder / name
        bundle.mkdir()
        (bundle / "config.json").write_text(json.dumps(document))
        return bundle


def find_engine(folder: Path, asked: str = "") -> Engine:
    """The engine that was asked for, or the first that answers. NoEngineError if there is none."""
    for name in (asked,) if asked else ("docker", "podman", "buildah"):
        if shutil.which(name) and _answers(name):
            return Engine(name, folder)
    raise NoEngineError(f"no container engine answers here ({asked or 'docker, podman, buildah'})")


def _answers(name: str) -> bool:
    return subprocess.run([name, "info"], capture_output=True, timeout=60).returncode == 0


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
