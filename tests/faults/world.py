"""Where a scenario takes place: a store that lacks something, a scratch, and, where the store is a
server, that server as a process of its own and perhaps a proxy before it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from e2e.object_server import Buckets
from faults.scenarios import FROM_NOTHING, Scenario
from faults.undisturbed import BUCKET, Undisturbed
from support.fault_proxy import FaultProxy

TESTS = Path(__file__).resolve().parents[1]
ROOM_AGAIN = 256 << 20
"""Bytes of a small disk when room has been made on it."""
PAGE = 4096

# Outputs of each target, and what goes with them.
_MADE = {
    "tiler": ("artifacts/tiler/", "artifacts/slide-tiles/", "datasets/"),
    "gan-trainer": ("artifacts/gan-trainer/",),
    "candidates": ("artifacts/candidates/",),
    "annotations": ("artifacts/annotations/", "annotations/"),
    "extractor": ("artifacts/classifier/",),
    "classifier": ("artifacts/classifier/",),
    "dataset": ("artifacts/dataset/",),
    "release": (),
}
# Made by every run that comes to its end.
_ALWAYS_MADE = (
    "runs/",
    "work/",
    "datasets/cut/releases/",
    "datasets/cut/pointer/",
    "datasets/cut/latest.json",
)
_CACHES = {"gan-trainer": ("artifacts/tile-features/",)}


@dataclass
class World:
    """One scenario's place. `proxy` is there while it takes place, if it has one."""

    folder: Path
    scenario: Scenario
    undisturbed: Undisturbed
    store_uri: str = ""
    environ: dict[str, str] = field(default_factory=dict)
    """What `hdgan` finds the store with."""
    honest: dict[str, str] = field(default_factory=dict)
    """The same, past the proxy."""
    proxy: FaultProxy | None = None

    @property
    def scratch(self) -> Path:
        return self.folder / "scratch"

    @property
    def other_scratch(self) -> Path:
        return self.folder / "other-scratch"

    @property
    def store_folder(self) -> Path:
        """Of the store or of the server's buckets."""
        return self.folder / ("store" if self.scenario.store == "file" else "objects")

    def objects(self) -> dict[str, bytes]:
        """Every object of the store as it is on the disk, by key; nothing of ours reads it."""
        if self.scenario.store == "file":
            return {
                path.relative_to(self.store_folder).as_posix(): path.read_bytes()
                for path in sorted(self.store_folder.rglob("*"))
                if path.is_file()
            }
        buckets = Buckets(self.store_folder)
        found, after, more = {}, "", True
        while more:
            entries, more = buckets.list(BUCKET, "", after, 1000)
            for entry in entries:
                found[entry.key] = (self.store_folder / BUCKET / entry.file).read_bytes()
                after = entry.key
        return found

    def unfinished(self) -> list[str]:
        """Uploads in parts that were neither completed nor given up."""
        if self.scenario.store == "file":
            return []
        return sorted(path.name for path in self.store_folder.glob(f"{BUCKET}/*.upload"))

    @property
    def disk(self) -> Path | None:
        """The small disk, if it is a real one: a server's is played by the proxy."""
        space = self.scenario.space
        if space is None or self.scenario.proxy is not None:
            return None
        return self.scratch if space.place == "scratch" else self.store_folder

    def make_room(self) -> None:
        """What a person does about a full disk."""
        if self.proxy is not None:
            self.proxy.heal()
        if self.disk is not None:
            _mount_again(self.disk, ROOM_AGAIN)


@contextlib.contextmanager
def world(folder: Path, scenario: Scenario, undisturbed: Undisturbed) -> Iterator[World]:
    """The place, for as long as the block runs. Small disks need the right to mount."""
    made = World(folder, scenario, undisturbed)
    with contextlib.ExitStack() as stack:
        if made.disk is not None:
            made.disk.mkdir(parents=True)
            stack.enter_context(_small_disk(made.disk))
        _lay_out(made)
        if made.disk is not None and scenario.space is not None:
            used = shutil.disk_usage(made.disk).used
            _mount_again(made.disk, used + scenario.space.free)
        if scenario.store == "file":
            made.store_uri = made.store_folder.as_uri()
        else:
            made.store_uri = f"s3://{BUCKET}"
            server = stack.enter_context(_server(made.store_folder))
            made.honest = _aws(server)
            made.environ = made.honest
            if scenario.proxy is not None:
                made.proxy = stack.enter_context(FaultProxy(server, scenario.proxy))
                made.environ = _aws(made.proxy.endpoint)
        yield made


def keeps(scenario: Scenario) -> Callable[[str], bool]:
    """Which objects of the undisturbed store the scenario begins with."""
    if scenario.kind == FROM_NOTHING:
        return lambda key: False
    left_out = _MADE[scenario.target] + _ALWAYS_MADE
    if scenario.without_caches:
        left_out += _CACHES.get(scenario.target, ())
    return lambda key: not key.startswith(left_out)


def _lay_out(made: World) -> None:
    kept = keeps(made.scenario)
    base = made.undisturbed
    if made.scenario.store == "file":
        for key, path in base.files.items():
            if kept(key):
                place = made.store_folder / key
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, place)
        made.store_folder.mkdir(exist_ok=True)
    else:
        bucket = made.store_folder / BUCKET
        bucket.mkdir(parents=True)
        for described in sorted((base.objects / BUCKET).glob("*.json")):
            document = json.loads(described.read_text())
            if kept(document["key"]):
                shutil.copyfile(described, bucket / described.name)
                shutil.copyfile(base.objects / BUCKET / document["file"], bucket / document["file"])
    for scratch in (made.scratch, made.other_scratch):
        scratch.mkdir(exist_ok=True)
        # Downloaded once; nobody wants that a hundred times.
        networks = base.run.scratch / "feature-extractors"
        if networks.is_dir():
            shutil.copytree(networks, scratch / networks.name)
    if made.scenario.target == "classifier":
        shutil.copytree(base.run.scratch / "features", made.scratch / "features")


@contextlib.contextmanager
def _server(folder: Path) -> Iterator[str]:
    """URL of the object server, in a process of its own that ends with ours."""
    process = subprocess.Popen(
        [sys.executable, "-m", "faults.serving", folder],
        env=os.environ | {"PYTHONPATH": str(TESTS)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


def _aws(endpoint: str) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "test-access-key",
        "AWS_SECRET_ACCESS_KEY": "test-secret-value",
        "AWS_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        # Enough for a single fault, soon spent in a burst of them.
        "AWS_MAX_ATTEMPTS": "5",
        "AWS_CONFIG_FILE": "/nonexistent/config",
        "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent/credentials",
    }


@contextlib.contextmanager
def _small_disk(folder: Path) -> Iterator[None]:
    _mount(folder, f"size={ROOM_AGAIN}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def _mount_again(folder: Path, size: int) -> None:
    whole = -(-size // PAGE) * PAGE
    _mount(folder, f"remount,size={whole}")


def _mount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "hdgan-faults", folder], check=True)
