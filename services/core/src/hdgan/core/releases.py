"""Releases of a dataset, and which of them is the latest.

`datasets/<name>/releases/<release>.json` never changes and is written only when every gate has let
the run through. `datasets/<name>/pointer/<seq>-<writer>.json` are appended, never changed: the
highest names the latest release, so promoting and rolling back append one more. Writers that take
the same number at once do no harm: the higher name counts. `datasets/<name>/latest.json` is a copy
of the highest for readers, put right on every look.
"""

from __future__ import annotations

import contextlib
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Literal, Self, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from hdgan.core.artifact import open_artifact
from hdgan.core.canonical import canonical_digest, canonical_json
from hdgan.core.errors import InputMissing, InternalError, KeyMissing, RequestError, StoreError
from hdgan.core.gates import GateVerdict
from hdgan.core.json_documents import reason
from hdgan.core.pipeline import (
    ADVICE,
    External,
    Observed,
    frozen_run,
    gate_verdicts,
)
from hdgan.core.request import Hex64, InputRef, Name
from hdgan.core.run import DatasetRun
from hdgan.core.store import Store

MAX_BYTES = 1 << 20
"""Longest document that is read here."""
MOST_POINTERS = 99_999_999
_POINTER = re.compile(r"/(\d{8})-([0-9a-f]{16})\.json$")
_RELEASE = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"

Verdict = Literal["Released", "Unchanged"]
Reason = Literal["released", "promoted", "rolled back"]


class _Document(BaseModel):
    model_config = ConfigDict(
        extra="ignore", frozen=True, strict=True, alias_generator=to_camel, populate_by_name=True
    )


class ReleasedClass(_Document):
    """A class of the masks; its place in the list is its value."""

    name: str
    color: str


class Release(_Document):
    """What a release consists of and how it came about."""

    dataset: Name
    name: Annotated[str, Field(pattern=_RELEASE, max_length=80)]
    run: Name
    run_digest: Hex64
    """Digest of the frozen run: `runs/<run>/<runDigest>.json`."""
    created: AwareDatetime
    artifacts: dict[str, InputRef]
    """By stage, `dataset` and `annotations` among them."""
    classes: list[ReleasedClass]
    tile_size: Annotated[int, Field(ge=1)]
    """Pixels of an image's side."""
    mpp: Annotated[float, Field(gt=0)]
    """Micrometres per pixel."""
    macro_dice: float | None = None
    """On the test images."""
    drift_kid: float | None = None
    """Of the tiles against the generator's samples, where that was taken from another release."""
    gates: list[GateVerdict] = []
    """What was measured against which limit; each has passed."""

    @model_validator(mode="after")
    def _has_a_dataset(self) -> Self:
        if "dataset" not in self.artifacts:
            raise ValueError("artifacts names no dataset")
        return self

    @property
    def content_digest(self) -> str:
        """Of the dataset."""
        return self.artifacts["dataset"].content_digest


class Pointer(_Document):
    """Which release is the latest, since when and why."""

    seq: Annotated[int, Field(ge=1, le=MOST_POINTERS)]
    writer: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    release: Annotated[str, Field(pattern=_RELEASE, max_length=80)]
    run: Name
    """The release's run."""
    artifact: InputRef
    """Its dataset."""
    reason: Reason
    at: AwareDatetime

    @property
    def place(self) -> tuple[int, str]:
        """What orders pointers."""
        return self.seq, self.writer


@dataclass(frozen=True)
class Published:
    """What became of a finished run, and the release that has its dataset."""

    verdict: Verdict
    release: str


def release_of(
    run: DatasetRun, external: External, observed: Observed, created: datetime
) -> Release:
    """The release of a run that is resolved and whose dataset exists. Its name follows from the
    run's name and its artifacts, those that only advise what to label left out."""
    artifacts = {
        name: one for name, one in sorted(observed.artifacts.items()) if name not in ADVICE
    }
    digests = {name: one.content_digest for name, one in artifacts.items()}
    return Release(
        dataset=run.dataset_name,
        name=f"{run.metadata.name}-{canonical_digest(digests)[:12]}",
        run=run.metadata.name,
        run_digest=frozen_run(run, external)[0],
        created=created,
        artifacts=artifacts,
        classes=[
            ReleasedClass(name=one.name, color=one.color) for one in run.spec.annotations.classes
        ],
        tile_size=run.spec.tiler.tile_size,
        mpp=run.spec.tiler.mpp,
        macro_dice=observed.macro_dice,
        drift_kid=observed.drift_kid,
        gates=gate_verdicts(run, observed),
    )


def verdict(store: Store, release: Release) -> Published | None:
    """What has become of its dataset before; None if it was never the latest.

    A dataset that was the latest once, whoever made it, is not made the latest again by making it
    again: somebody may have rolled it back.
    """
    for pointer in _pointers(store, release.dataset):
        if pointer.artifact.content_digest == release.content_digest:
            own = pointer.run == release.run
            return Published("Released" if own else "Unchanged", pointer.release)
    return None


def publish(store: Store, release: Release) -> Published:
    """Make it the latest, unless its dataset was that before. May be repeated after a crash at any
    point."""
    shut = [one.name for one in release.gates if not one.passed]
    if shut:
        raise InternalError(f"{release.name} is to be released, but has not passed {shut}")
    before = verdict(store, release)
    if before is not None:
        _repaired(store, release.dataset)
        if store.head(_release_place(release.dataset, before.release)) is not None:
            return before
        # That one was removed. This one keeps the dataset, but does not become the latest.
        _write(store, release)
        return Published(before.verdict, release.name)
    _append(store, _write(store, release), "released")
    return Published("Released", release.name)


def _write(store: Store, release: Release) -> Release:
    """Write its document, which keeps its artifacts from then on; returns what is there.

    InputMissing if one of them is gone: a runner that has slept since it looked may be late.
    """
    place = _release_place(release.dataset, release.name)
    store.put_if_absent(place, _dumped(release))
    found = _read(store, place, Release)
    if found is None:
        raise InternalError(f"{store.url(place)} was written and is not there")
    try:
        _check_whole(store, found)
        _check_complete(store, found)
    except InputMissing:
        store.delete(place)
        raise
    return found


def before_it(store: Store, dataset: str, content_digest: str | None) -> str | None:
    """Name of the release that a dataset of this content takes over from; None if there is none.

    That is the latest; if the dataset has been the latest already, the one that was it before that:
    so a run that is done again is compared as it was the first time.
    """
    newest = None
    for pointer in _pointers(store, dataset):
        if pointer.artifact.content_digest == content_digest:
            newest = None
        elif newest is None:
            newest = pointer.release
    return newest


def latest_name(store: Store, dataset: str) -> str | None:
    """Name of the latest release; None if there is none."""
    pointer = _repaired(store, dataset)
    return None if pointer is None else pointer.release


def latest(store: Store, dataset: str) -> Release | None:
    """The latest release; None if there is none. InputMissing if its file is gone or damaged."""
    name = latest_name(store, dataset)
    return None if name is None else read_release(store, dataset, name)


def read_release(store: Store, dataset: str, name: str) -> Release:
    """A release. InputMissing if there is none of this name or it cannot be read."""
    if not re.match(_RELEASE, name):
        raise RequestError(f"{name!r} cannot be the name of a release")
    place = _release_place(dataset, name)
    found = _read_release(store, place)
    if found is None:
        raise InputMissing(
            f"there is no release {store.url(place)}: hdgan releases list {dataset} shows those "
            "there are, hdgan releases promote makes one of them the latest"
        )
    return found


def releases(store: Store, dataset: str) -> list[Release]:
    """All releases that can be read, the oldest first."""
    found = []
    for place in store.list(f"datasets/{dataset}/releases/"):
        with contextlib.suppress(InputMissing):
            release = _read_release(store, place)
            if release is not None:
                found.append(release)
    return sorted(found, key=lambda one: (one.created, one.name))


def all_releases(store: Store, known: dict[str, Release]) -> Iterator[Release]:
    """The releases of all datasets. InputMissing if one cannot be read.

    known  those that have been read before, by their place; the others are added
    """
    for place in store.list("datasets/"):
        _, _, rest = place.removeprefix("datasets/").partition("/")
        if not (rest.startswith("releases/") and rest.endswith(".json")):
            continue
        release = known.get(place) or _read_release(store, place)
        if release is not None:
            known[place] = release
            yield release


def latest_datasets(store: Store) -> Iterator[tuple[str, InputRef]]:
    """Each dataset's name, and the artifact its highest pointer names."""
    names = {place.split("/")[1] for place in store.list("datasets/") if _POINTER.search(place)}
    for name in sorted(names):
        highest = next(_pointers(store, name), None)
        if highest is not None:
            yield name, highest.artifact


def promote(store: Store, dataset: str, name: str) -> Release:
    """Make a release the latest. InputMissing if it, or its dataset, is not there (any more)."""
    release = read_release(store, dataset, name)
    _check_whole(store, release)
    if latest_name(store, dataset) != name:
        _append(store, release, "promoted")
    return release


def remove(store: Store, dataset: str, name: str) -> Release:
    """Forget a release, so that nothing keeps its artifacts but other releases. RequestError if it
    is the latest."""
    release = read_release(store, dataset, name)
    if latest_name(store, dataset) == name:
        raise RequestError(
            f"{name} is the latest of {dataset} and is not removed: make another one the latest "
            "first (hdgan releases promote or rollback)"
        )
    store.delete(_release_place(dataset, name))
    if latest_name(store, dataset) == name:
        # Somebody has made it the latest since we looked. He looks after that, too: see `_append`.
        store.put_if_absent(_release_place(dataset, name), _dumped(release))
        raise RequestError(f"{name} was made the latest of {dataset} at the same moment: it stays")
    return release


def roll_back(store: Store, dataset: str) -> Release:
    """Make the release the latest that was it before the present one; those that were rolled back
    themselves, and those that are not whole any more, are passed over. InputMissing if there is
    none."""
    history: list[str] = []
    for pointer in reversed(list(_pointers(store, dataset))):
        if pointer.reason == "rolled back" and pointer.release in history:
            while history[-1] != pointer.release:
                history.pop()
            continue
        history.append(pointer.release)
    if not history:
        raise InputMissing(f"dataset {dataset} has no releases in {store.uri}")
    for name in reversed(history[:-1]):
        if name == history[-1]:
            continue
        try:
            release = read_release(store, dataset, name)
            _check_whole(store, release)
        except InputMissing:
            continue
        _append(store, release, "rolled back")
        return release
    raise InputMissing(f"before {history[-1]} no release of {dataset} that is whole was the latest")


def pinned_to(store: Store, run: DatasetRun, name: str | None = None) -> Release:
    """The release whose generator a run with `generator: pinned` goes on with: the latest, or the
    one of that name. RequestError if there is none or it is not for tiles like the run's."""
    dataset = run.dataset_name
    release = latest(store, dataset) if name is None else read_release(store, dataset, name)
    if release is None:
        raise RequestError(
            f"spec.generator is pinned, but dataset {dataset} has no release in {store.uri} yet: "
            "make one with generator: train"
        )
    asked = {"tileSize": run.spec.tiler.tile_size, "mpp": run.spec.tiler.mpp}
    has = {"tileSize": release.tile_size, "mpp": release.mpp}
    for name, value in asked.items():
        if value != has[name]:
            raise RequestError(
                f"spec.tiler.{name} is {value}, but the generator of release {release.name} is for "
                f"{has[name]}: use that, or generator: train"
            )
    classes = [(one.name, one.color) for one in run.spec.annotations.classes]
    if classes != [(one.name, one.color) for one in release.classes]:
        raise RequestError(
            "spec.annotations.classes are not those of release "
            f"{release.name} ({', '.join(one.name for one in release.classes)}), whose annotations "
            "are used: use them, or generator: train"
        )
    for name in ("gan-trainer", "candidates"):
        reference = release.artifacts.get(name)
        found = None if reference is None else open_artifact(store, reference.stage, reference.key)
        if found is None or reference is None or found.content_digest != reference.content_digest:
            raise InputMissing(
                f"the {name} artifact of release {release.name} is not in {store.uri} any more: "
                "promote another release, or use generator: train"
            )
    return release


def _check_whole(store: Store, release: Release) -> None:
    artifact = open_artifact(store, "dataset", release.artifacts["dataset"].key)
    if artifact is None or artifact.content_digest != release.content_digest:
        raise InputMissing(f"the dataset of release {release.name} is not in {store.uri} any more")


def _check_complete(store: Store, release: Release) -> None:
    """InputMissing unless all that a new release names is there."""
    for name, one in release.artifacts.items():
        if open_artifact(store, one.stage, one.key) is None:
            raise InputMissing(
                f"the {name} artifact {one.key} that {release.name} was made of is not in "
                f"{store.uri} any more: run it again, it is made anew"
            )


def _pointers(store: Store, dataset: str, known: Pointer | None = None) -> Iterator[Pointer]:
    """All that can be read, the newest first. A listing may be late: what `latest.json` copies, and
    the one that was just written (`known`), are among them all the same."""
    sure = {one.place: one for one in (_copy(store, dataset), known) if one is not None}
    listed = {}
    for name in store.list(f"datasets/{dataset}/pointer/"):
        match = _POINTER.search(name)
        if match:
            listed[int(match[1]), match[2]] = name
    for place in sorted({*sure, *listed}, reverse=True):
        pointer = sure.get(place)
        if pointer is None:
            with contextlib.suppress(InputMissing):
                pointer = _read(store, listed[place], Pointer)
        if pointer is not None:
            yield pointer


def _copy(store: Store, dataset: str) -> Pointer | None:
    """What `latest.json` says; a damaged one is as good as none."""
    with contextlib.suppress(InputMissing):
        return _read(store, _latest_place(dataset), Pointer)
    return None


def _repaired(store: Store, dataset: str, known: Pointer | None = None) -> Pointer | None:
    """The highest pointer, after putting `latest.json` right."""
    while True:
        copy = _copy(store, dataset)
        highest = next(_pointers(store, dataset, known), None)
        if highest is None or (copy is not None and copy.place >= highest.place):
            return copy
        try:
            store.put(_latest_place(dataset), _dumped(highest))
        except StoreError:  # who may only read sees the truth all the same
            return highest
        # Again: a higher one, and its copy, may have come meanwhile.


def _append(store: Store, release: Release, reason: Reason) -> None:
    dataset = release.dataset
    newest = _repaired(store, dataset)
    if newest is not None and newest.seq >= MOST_POINTERS:
        raise InputMissing(
            f"{store.url(_latest_place(dataset))} has the number {newest.seq}, after which there is"
            f" none: it, or a file below {store.url(f'datasets/{dataset}/pointer')}, was damaged;"
            " delete those with such a number"
        )
    pointer = Pointer(
        seq=1 if newest is None else newest.seq + 1,
        writer=uuid.uuid4().hex[:16],
        release=release.name,
        run=release.run,
        artifact=release.artifacts["dataset"],
        reason=reason,
        at=datetime.now(UTC),
    )
    store.put(
        f"datasets/{dataset}/pointer/{pointer.seq:08d}-{pointer.writer}.json", _dumped(pointer)
    )
    # It may have been removed since it was read: who removes looks for pointers after that.
    store.put_if_absent(_release_place(dataset, release.name), _dumped(release))
    highest = _repaired(store, dataset, pointer)
    if highest is not None and highest.place != pointer.place and reason != "released":
        raise RequestError(
            f"{highest.release} was {highest.reason} at the same moment and is the latest of "
            f"{dataset} now: look at hdgan releases list, then decide again"
        )


_T = TypeVar("_T", bound=_Document)


def _read(store: Store, place: str, model: type[_T]) -> _T | None:
    """A document; None if there is none. InputMissing if it is damaged."""
    info = store.head(place)
    if info is None:
        return None
    try:
        if info.size > MAX_BYTES:
            raise ValueError(f"it has {info.size} bytes")
        return model.model_validate_json(store.get(place))
    except KeyMissing:
        return None
    except ValueError as error:
        raise InputMissing(
            f"{store.url(place)} cannot be read ({reason(error)}): restore it, or delete it"
        ) from error


def _read_release(store: Store, place: str) -> Release | None:
    release = _read(store, place, Release)
    if release is not None and _release_place(release.dataset, release.name) != place:
        raise InputMissing(
            f"{store.url(place)} is release {release.name} of {release.dataset}: restore what was"
            " there, or delete it"
        )
    return release


def _dumped(document: _Document) -> bytes:
    return canonical_json(document.model_dump(mode="json", by_alias=True, exclude_none=True))


def _release_place(dataset: str, name: str) -> str:
    return f"datasets/{dataset}/releases/{name}.json"


def _latest_place(dataset: str) -> str:
    return f"datasets/{dataset}/latest.json"
