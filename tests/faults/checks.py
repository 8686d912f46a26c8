"""What has to hold when a scenario is over. Nothing of the product reads the store here."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from faults.undisturbed import Undisturbed, features_in

TEMPORARY = ".hdgan-tmp-"
PROBES = ".hdgan-probe/"
FOLDS = "datasets/cut/folds/"

_HEX = "[0-9a-f]{64}"
_ATTEMPT = r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{8}"
_KNOWN = re.compile(
    rf"^(artifacts/[a-z-]+/{_HEX}/(manifest\.json|{_ATTEMPT}/.+)"
    rf"|work/(slides|slide-facts)/{_HEX}\.json"
    rf"|work/[a-z-]+/{_HEX}/({_ATTEMPT}|pieces|spent)/.+"
    rf"|annotations/{_HEX}/[0-9]{{6}}\.json"
    rf"|runs/[a-z0-9-]+/({_HEX}|status)\.json"
    rf"|pins/[a-z0-9-]+/(use|annotation)-{_HEX}\.json"
    rf"|gc/(marks|collecting|removed)/.+\.json"
    r"|reports/cut/[a-z0-9-]+\.html"
    r"|datasets/cut/(folds|folds/.+|latest|releases/[a-z0-9-]+|pointer/[0-9]{8}-[0-9a-f]{16})"
    r"\.json)$"
)

# A frozen run has the folder of its slides in it.
_OF_THIS_TIME = (
    (re.compile(_ATTEMPT), "*"),
    (re.compile(r"/pointer/[0-9]{8}-[0-9a-f]{16}\.json$"), "/pointer/*"),
    (re.compile(rf"^runs/cut/{_HEX}\.json$"), "runs/cut/*"),
)


def wrong(objects: Mapping[str, bytes], undisturbed: Undisturbed) -> Iterator[str]:
    """What is wrong with the store of a run that has come to its end."""
    yield from damaged(objects)
    found = digests(objects)
    for name, digest in undisturbed.digests.items():
        if name not in found:
            yield f"artifact {name} is not there"
        elif found[name] != digest:
            yield f"artifact {name} has content {found[name]}, undisturbed it has {digest}"
    for name in sorted(found.keys() - undisturbed.digests.keys()):
        yield f"artifact {name} is one too many"
    yield from _wrong_releases(objects, undisturbed.release)
    noted = {
        key: data for key, data in objects.items() if key.startswith(FOLDS) and not _unfinished(key)
    }
    expected = {key: path for key, path in undisturbed.files.items() if key.startswith(FOLDS)}
    if noted != {key: path.read_bytes() for key, path in expected.items()}:
        yield f"folds are not noted as undisturbed, but so: {noted!r}"


def damaged(objects: Mapping[str, bytes]) -> Iterator[str]:
    """What no moment may ever show: half documents, manifests that promise what is not there."""
    for key, data in objects.items():
        if _unfinished(key):
            continue
        if not _KNOWN.match(key):
            yield f"{key} is nothing that is known"
        elif key.startswith("reports/"):
            if not data.startswith(b"<!doctype html") or not data.endswith(b" -->\n"):
                yield f"{key} is no whole report: {len(data)} bytes"
        elif key.endswith(".json"):
            try:
                json.loads(data)
            except ValueError:
                yield f"{key} is no JSON: {len(data)} bytes, {data[:40]!r}"
    for key, manifest in manifests(objects).items():
        for entry in manifest["files"]:
            place = f"{key.removesuffix('manifest.json')}{entry['attempt']}/{entry['name']}"
            if place not in objects:
                yield f"{key} names {place}, which is not there"
            elif hashlib.sha256(objects[place]).hexdigest() != entry["sha256"]:
                yield f"{place} is not what {key} says"


def _unfinished(key: str) -> bool:
    """Whether nobody reads it: a write or a probe that was cut off."""
    return Path(key).name.startswith(TEMPORARY) or key.startswith(PROBES)


def manifests(objects: Mapping[str, bytes]) -> dict[str, dict[str, list[dict[str, str]]]]:
    """The readable manifests, by key."""
    found = {}
    for key, data in objects.items():
        if re.fullmatch(rf"artifacts/[a-z-]+/{_HEX}/manifest\.json", key):
            try:
                found[key] = json.loads(data)
            except ValueError:
                continue
    return found


def digests(objects: Mapping[str, bytes]) -> dict[str, str]:
    """Content digests by `stage/key`."""
    return {
        "/".join(key.split("/")[1:3]): str(manifest["contentDigest"])
        for key, manifest in manifests(objects).items()
    }


def wrong_features(scratch: Path, undisturbed: Undisturbed) -> Iterator[str]:
    """Feature shards on a scratch that differ from the undisturbed ones."""
    for name, digest in features_in(scratch).items():
        expected = undisturbed.features.get(name)
        if digest != expected:
            yield f"features {name} are {digest}, undisturbed they are {expected}"


def _wrong_releases(whole: Mapping[str, bytes], expected: str) -> Iterator[str]:
    objects = {key: data for key, data in whole.items() if not _unfinished(key)}
    named = [key for key in objects if key.startswith("datasets/cut/releases/")]
    if named != [f"datasets/cut/releases/{expected}.json"]:
        yield f"releases are {named}, it should be {expected} alone"
    pointers = sorted(key for key in objects if key.startswith("datasets/cut/pointer/"))
    if not pointers:
        yield "no pointer says which release is the latest"
        return
    newest = json.loads(objects[pointers[-1]])
    latest = json.loads(objects.get("datasets/cut/latest.json", b"null"))
    if newest["release"] != expected or latest != newest:
        yield f"the latest release is {latest}, the highest pointer says {newest}"


def kinds_of(objects: Mapping[str, bytes]) -> set[str]:
    """Keys, with what differs from one attempt to the next left out, and without what tells of
    who has looked when (pins and the notes of collections), and reports, which a run ends well
    without."""
    kinds = set()
    for key in objects:
        if not key.startswith(("pins/", "gc/", "reports/")):
            for pattern, instead in _OF_THIS_TIME:
                key = pattern.sub(instead, key)
            kinds.add(key)
    return kinds
