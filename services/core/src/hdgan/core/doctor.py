"""`hdgan doctor`: is this machine ready for a run, and if not, what to do."""

from __future__ import annotations

import ctypes.util
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import time
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from hdgan.core.errors import HdganError
from hdgan.core.redaction import redact
from hdgan.core.stage import format_bytes
from hdgan.core.store import open_store

SPEED_TEST_BYTES = 64 * 1000 * 1000
LOW_MEMORY = 4e9
LOW_SPACE = 10e9
SLOW_DISK = 50e6

Level = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Finding:
    """One thing looked at. A `problem` keeps runs from working, a `warning` does not."""

    name: str
    level: Level
    found: str
    advice: str = ""


def examine(scratch: Path, store_uri: str | None) -> list[Finding]:
    """Look at everything a run needs on this machine."""
    findings = [_python(), _cpu(), _memory(), *_torch(), _openslide(), *_scratch(scratch)]
    if store_uri is not None:
        findings.append(_store(store_uri))
    return findings


def healthy(findings: list[Finding]) -> bool:
    """Whether nothing necessary is wrong."""
    return all(finding.level != "problem" for finding in findings)


def as_json(findings: list[Finding]) -> str:
    """The findings for programs."""
    document = {"ok": healthy(findings), "findings": [asdict(finding) for finding in findings]}
    return json.dumps(document, indent=1)


def _python() -> Finding:
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    return Finding("python", "ok", found)


def _cpu() -> Finding:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota = cpu_quota(_read("/sys/fs/cgroup/cpu.max"))
    found = f"{cores} cores"
    if quota is not None and cores is not None and quota < cores:
        return Finding(
            "cpu",
            "warning",
            f"{found}, of which the container may use {quota:g}",
            f"set resources.threads to {max(1, int(quota))}",
        )
    return Finding("cpu", "ok", found)


def _memory() -> Finding:
    total = memory_limit(
        _read("/proc/meminfo"),
        _read("/sys/fs/cgroup/memory.max") or _read("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
    )
    if total is None:
        return Finding("memory", "warning", "unknown", "at least 4 GB are needed")
    if total < LOW_MEMORY:
        return Finding("memory", "warning", format_bytes(total), "use small tiles and batches")
    return Finding("memory", "ok", format_bytes(total))


def cpu_quota(text: str | None) -> float | None:
    """Cores a cgroup allows, from its cpu.max (`quota period` or `max period`)."""
    parts = (text or "").split()
    if len(parts) != 2 or parts[0] == "max":
        return None
    return int(parts[0]) / int(parts[1])


def memory_limit(meminfo: str | None, cgroup: str | None) -> int | None:
    """Bytes this process may use: the machine's memory or the container's limit."""
    limits = []
    for line in (meminfo or "").splitlines():
        if line.startswith("MemTotal:"):
            limits.append(int(line.split()[1]) * 1024)
    if cgroup is not None and cgroup.strip().isdecimal():
        limits.append(int(cgroup))
    return min(limits, default=None)


_TORCH_PROBE = """
import json, torch
cuda = torch.cuda.is_available()
names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if cuda else []
print(json.dumps({"version": torch.__version__, "build": torch.version.cuda, "devices": names}))
"""


def _torch() -> list[Finding]:
    if importlib.util.find_spec("torch") is None:
        return [
            Finding(
                "torch", "warning", "not installed", "only the tiler and the desk work without it"
            )
        ]
    try:
        # In a process of its own: core imports no torch, and a broken build cannot hurt us.
        done = subprocess.run(
            [sys.executable, "-c", _TORCH_PROBE],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        facts = json.loads(done.stdout.splitlines()[-1])
    except (subprocess.SubprocessError, OSError, ValueError, IndexError) as error:
        return [Finding("torch", "problem", f"cannot be imported: {error}", "install it again")]
    return judge_torch(facts["version"], facts["build"], facts["devices"])


def judge_torch(version: str, build: str | None, devices: list[str]) -> list[Finding]:
    """Findings about a torch build (`build`: its CUDA version, None for a CPU build)."""
    kind = f"{version}, built for {'CUDA ' + build if build else 'the CPU'}"
    if build and not devices:
        torch = Finding(
            "torch",
            "warning",
            kind,
            "a CUDA build without a GPU wastes several GB of disk: make the environment again with "
            "TORCH_INDEX set to the address of PyTorch's CPU builds",
        )
    else:
        torch = Finding("torch", "ok", kind)
    if devices:
        return [torch, Finding("gpu", "ok", ", ".join(devices))]
    return [torch, Finding("gpu", "ok", "none; training large networks needs one")]


def _openslide() -> Finding:
    for module in ("openslide_bin", "openslide"):
        if importlib.util.find_spec(module) is None:
            continue
        if module == "openslide_bin" or ctypes.util.find_library("openslide"):
            return Finding("openslide", "ok", f"found ({module})")
    return Finding(
        "openslide",
        "problem",
        "the library that reads slides is not there",
        "pip install openslide-python openslide-bin",
    )


def _scratch(scratch: Path) -> list[Finding]:
    probe: Path | None = None
    try:
        scratch.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(scratch).free
        space = Finding("scratch", "ok", f"{format_bytes(free)} free in {scratch}")
        if free < LOW_SPACE:
            advice = "large tiles need more: name another folder with --scratch"
            space = Finding("scratch", "warning", space.found, advice)
        if free < 2 * SPEED_TEST_BYTES:
            advice = "free some space, or name another folder with --scratch"
            return [Finding("scratch", "problem", space.found, advice)]
        probe = scratch / f".hdgan-speed-{uuid.uuid4().hex}"
        speed = _write_speed(probe)
    except OSError as error:
        return [
            Finding(
                "scratch",
                "problem",
                f"{scratch}: {error.strerror}",
                "name a folder that can be written to with --scratch",
            )
        ]
    finally:
        if probe is not None:
            probe.unlink(missing_ok=True)
    found = f"{format_bytes(speed)}/s written and synced"
    if speed < SLOW_DISK:
        return [space, Finding("scratch speed", "warning", found, "a local SSD is much faster")]
    return [space, Finding("scratch speed", "ok", found)]


def _write_speed(path: Path) -> float:
    """Bytes per second of a write that really reached the disk."""
    block = os.urandom(1_000_000)  # not zeros: some file systems compress
    started = time.perf_counter()
    with path.open("wb") as file:
        for _ in range(SPEED_TEST_BYTES // len(block)):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    return SPEED_TEST_BYTES / max(time.perf_counter() - started, 1e-9)


def _store(uri: str) -> Finding:
    try:
        open_store(uri).probe()
    except HdganError as error:
        return Finding("store", "problem", redact(uri), redact(str(error)))
    return Finding("store", "ok", f"{uri} can be read and written")


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError:
        return None
