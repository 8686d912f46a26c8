"""Immutable outputs of stages: keys, attempts, manifests, and the commit that makes one of them
real.

An attempt writes under `artifacts/<stage>/<key>/<attempt>/`; the artifact exists from the moment
`artifacts/<stage>/<key>/manifest.json` does. Whoever comes second adopts what he finds there. An
attempt that has slept so long that its files may have been collected looks for them first.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError
from pydantic.alias_generators import to_camel

from hdgan.core.atomic_file import explain_os_error, sha256_file
from hdgan.core.bounded_reading import read_object
from hdgan.core.canonical import canonical_digest, canonical_json
from hdgan.core.elapsed import Moment
from hdgan.core.errors import (
    InputMissing,
    InternalError,
    KeyMissing,
    RequestError,
    StoreError,
    StoreUnavailable,
    WrongContent,
)
from hdgan.core.json_documents import parse_model, parse_object
from hdgan.core.request import Name
from hdgan.core.store import Store, check_key

MANIFEST = "manifest.json"
RUN_INFO = "run-info.json"
MAX_MANIFEST_BYTES = 256 << 20
MAX_RUN_INFO_BYTES = 16 << 20
CHECK_SECONDS = 3600.0
"""Age at which a commit looks again for a file it has uploaded. Much less than what `hdgan gc`
waits for."""

ABANDONED = timedelta(hours=1)
"""Age at which nobody believes any more that files are being collected."""

_HEX64 = r"^[0-9a-f]{64}$"
_STAGE = re.compile(r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")
_ATTEMPT = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,127}$"


class _Document(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, alias_generator=to_camel, populate_by_name=True
    )


class FileEntry(_Document):
    """One file of an artifact and the attempt whose folder holds it."""

    name: Annotated[str, Field(min_length=1, max_length=400)]
    size: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern=_HEX64)]
    attempt: Annotated[str, Field(pattern=_ATTEMPT)]


class Need(_Document):
    """Another artifact that is read together with this one."""

    stage: Name
    key: Annotated[str, Field(pattern=_HEX64)]
    alone: bool = False
    """Only its own files are read, not what it needs itself."""


class Manifest(_Document):
    """What an artifact consists of. `config` and `inputs` (content digests) say how it was made,
    `needs` what has to be kept as long as it is kept."""

    stage: str
    key: Annotated[str, Field(pattern=_HEX64)]
    stage_version: Annotated[int, Field(ge=1)]
    attempt: Annotated[str, Field(pattern=_ATTEMPT)]
    content_digest: Annotated[str, Field(pattern=_HEX64)]
    inputs: dict[str, str]
    config: dict[str, JsonValue]
    files: list[FileEntry]
    needs: list[Need] = []


def artifact_key(
    stage: str,
    stage_version: int,
    config: Mapping[str, Any],
    inputs: Mapping[str, str],
    rerun: str | None = None,
) -> str:
    """The key (64 hex digits) under which a stage's output is known before it is computed.

    config  what changes the output, without fields at their neutral value: `semantic(section)`
    inputs  content digest of every input, by name
    rerun   a token that asks for a computation of its own; None leaves the key alone
    """
    document: dict[str, Any] = {
        "stage": stage,
        "stageVersion": stage_version,
        "config": config,
        "inputs": inputs,
    }
    if rerun is not None:
        document["rerun"] = rerun
    return canonical_digest(document)


def content_digest(files: Iterable[FileEntry]) -> str:
    """Digest of what the files are: names, sizes and SHA-256, whoever wrote them and wherever."""
    return canonical_digest(sorted([entry.name, entry.size, entry.sha256] for entry in files))


def new_attempt() -> str:
    """A name no other attempt has; begins with the time, so that a listing is in order."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:8]}"


def artifact_folder(stage: str, key: str) -> str:
    """`artifacts/<stage>/<key>`, with both checked."""
    if not _STAGE.match(stage) or not re.match(_HEX64, key):
        raise RequestError(
            f"{stage}/{key} names no artifact: a stage is lower-case words with -, a key 64 hex"
            " digits"
        )
    return f"artifacts/{stage}/{key}"


def collecting_place(stage: str, key: str) -> str:
    """What `hdgan gc` writes before it removes files of a key, and removes after that."""
    return f"gc/collecting/{stage}/{key}.json"


def is_committed(store: Store, stage: str, key: str) -> bool:
    """Whether the artifact exists."""
    return store.head(f"{artifact_folder(stage, key)}/{MANIFEST}") is not None


def is_collected(store: Store, stage: str, key: str) -> bool:
    """Whether files of a key are being removed now. What a pass says that was killed long ago is
    not believed."""
    note = store.head(collecting_place(stage, key))
    return note is not None and store.now() - note.modified < ABANDONED


class Artifact:
    """A committed artifact, for reading. Everything it hands out has been verified."""

    def __init__(self, store: Store, manifest: Manifest) -> None:
        self.store = store
        self.manifest = manifest
        self._folder = artifact_folder(manifest.stage, manifest.key)
        self._entries = {entry.name: entry for entry in manifest.files}

    @property
    def content_digest(self) -> str:
        return self.manifest.content_digest

    def names(self) -> list[str]:
        """Names of all files, sorted."""
        return sorted(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def entry(self, name: str) -> FileEntry:
        """Size and SHA-256 of a file. InputMissing if the manifest does not name it."""
        try:
            return self._entries[name]
        except KeyError:
            raise InputMissing(
                f"{self.store.uri}/{self._folder} has no file {name!r}; it was made by another"
                " version of this stage"
            ) from None

    def uri(self, name: str) -> str:
        """Where the file is, for people and logs."""
        return self.store.url(self._key(self.entry(name)))

    def read(self, name: str) -> bytes:
        """The file's bytes. InputMissing if it is not there or not what the manifest says."""
        entry = self.entry(name)
        key = self._key(entry)
        # Before the bytes: a file that was replaced by a huge one must not fill the memory.
        info = self.store.head(key)
        if info is None:
            raise self._missing(entry)
        if info.size != entry.size:
            raise self._tampered(entry, f"has {info.size} bytes, not {entry.size}")
        try:
            data = self.store.get(key)
        except KeyMissing:
            raise self._missing(entry) from None
        if hashlib.sha256(data).hexdigest() != entry.sha256:
            raise self._tampered(entry, "has another SHA-256")
        return data

    def fetch(self, name: str, dest: Path) -> Path:
        """Copy the file to `dest` (a file path) unless it is there already; returns `dest`."""
        entry = self.entry(name)
        try:
            if (
                dest.is_file()
                and dest.stat().st_size == entry.size
                and sha256_file(dest) == entry.sha256
            ):
                return dest
        except OSError as error:
            raise explain_os_error(error, "read", dest) from error
        try:
            self.store.get_to(self._key(entry), dest, sha256=entry.sha256)
        except KeyMissing:
            raise self._missing(entry) from None
        except WrongContent:
            raise self._tampered(entry, "has another SHA-256") from None
        return dest

    def run_info(self) -> dict[str, Any]:
        """Timings, device, versions of the attempt that made it; {} if they are lost."""
        try:
            place = f"{self._folder}/{self.manifest.attempt}/{RUN_INFO}"
            return parse_object(read_object(self.store, place, MAX_RUN_INFO_BYTES), nan=True)
        except (KeyMissing, ValueError):
            return {}

    def _key(self, entry: FileEntry) -> str:
        return f"{self._folder}/{entry.attempt}/{entry.name}"

    def _missing(self, entry: FileEntry) -> InputMissing:
        return InputMissing(
            f"{self.store.url(self._key(entry))} is missing although the manifest names it."
            f" {self._advice()}"
        )

    def _tampered(self, entry: FileEntry, how: str) -> InputMissing:
        return InputMissing(
            f"{self.store.url(self._key(entry))} {how}: it was changed or damaged after it was"
            f" committed. {self._advice()}"
        )

    def _advice(self) -> str:
        manifest = self.store.url(f"{self._folder}/{MANIFEST}")
        return f"Restore it, or delete {manifest} to have it computed again"


def open_artifact(store: Store, stage: str, key: str) -> Artifact | None:
    """The artifact, or None if it does not exist (yet). InputMissing if its manifest is damaged."""
    place = f"{artifact_folder(stage, key)}/{MANIFEST}"
    info = store.head(place)
    if info is None:
        return None
    try:
        if info.size > MAX_MANIFEST_BYTES:
            raise ValueError(f"{info.size} bytes are too many")
        manifest = parse_model(Manifest, store.get(place), max_bytes=MAX_MANIFEST_BYTES)
        _check(manifest, stage, key)
    except KeyMissing:
        return None  # deleted between the two calls
    except ValueError as error:  # pydantic's ValidationError is one
        reason = "not a manifest" if isinstance(error, ValidationError) else str(error)
        raise InputMissing(
            f"{store.url(place)} is damaged ({reason}). Restore it, or delete it to have the"
            " artifact computed again"
        ) from error
    return Artifact(store, manifest)


def _check(manifest: Manifest, stage: str, key: str) -> None:
    """ValueError unless the manifest is about this artifact and consistent in itself."""
    if (manifest.stage, manifest.key) != (stage, key):
        raise ValueError("it belongs to another artifact")
    names = [entry.name for entry in manifest.files]
    if len(set(names)) != len(names):
        raise ValueError("it names a file twice")
    for name in names:
        _check_name(name)
    if manifest.content_digest != content_digest(manifest.files):
        raise ValueError("its content digest does not match its list of files")


def _check_name(name: str) -> str:
    try:
        check_key(name)
    except StoreError as error:
        raise ValueError(str(error)) from None
    if name in (MANIFEST, RUN_INFO):
        raise ValueError(f"{name} cannot be a file of an artifact: the name is reserved")
    return name


class Attempt:
    """One attempt at an artifact, for writing. Nothing is visible to readers before `commit`."""

    def __init__(
        self,
        store: Store,
        stage: str,
        key: str,
        *,
        stage_version: int = 1,
        attempt: str | None = None,
        config: Mapping[str, Any] | None = None,
        inputs: Mapping[str, str] | None = None,
    ) -> None:
        self.store = store
        self.stage = stage
        self.key = key
        self.attempt = attempt or new_attempt()
        if not re.match(_ATTEMPT, self.attempt):
            raise RequestError(f"{self.attempt!r} is no attempt name: use letters, digits, - and _")
        self._folder = artifact_folder(stage, key)
        self._stage_version = stage_version
        self._config = dict(config or {})
        self._inputs = dict(inputs or {})
        self._needs: set[tuple[str, str, bool]] = set()
        self._entries: dict[str, FileEntry] = {}
        self._seen: dict[str, Moment] = {}

    @property
    def entries(self) -> list[FileEntry]:
        """What has been added so far: keep it in the work state, `adopt` it in a later attempt."""
        return [self._entries[name] for name in sorted(self._entries)]

    def add_bytes(self, name: str, data: bytes) -> FileEntry:
        """Upload a small file. Names may have folders: `images/a.png`."""
        entry = self._new(name, len(data), hashlib.sha256(data).hexdigest())
        moment = Moment()
        self.store.put(f"{self._folder}/{self.attempt}/{name}", data)
        return self._add(entry, moment)

    def add_file(self, name: str, path: Path) -> FileEntry:
        """Upload a file from disk, streamed."""
        if self._name(name) in self._entries:  # nothing is uploaded over another content
            try:
                self._new(name, path.stat().st_size, sha256_file(path))
            except OSError as error:
                raise explain_os_error(error, "read", path) from error
        moment = Moment()
        content = self.store.put_from(f"{self._folder}/{self.attempt}/{name}", path)
        return self._add(self._new(name, content.size, content.sha256), moment)

    def adopt(self, entry: FileEntry) -> None:
        """Take over a file that an earlier attempt at the same key has uploaded.

        InputMissing if it is not there: make it again with `add_bytes` or `add_file`.
        """
        moment = Moment()
        self._check_there(entry)
        self._add(entry, moment)

    def need(self, stage: str, key: str, *, alone: bool = False) -> None:
        """Say that another artifact is read together with this one: it is kept as long.

        alone  without what it needs itself
        """
        artifact_folder(stage, key)
        self._needs.add((stage, key, alone))

    def commit(self, run_info: Mapping[str, Any]) -> Artifact:
        """Make the artifact real, or adopt the one another attempt has made real meanwhile.

        `run_info` (timings, device, versions) is kept outside the content digest. InputMissing if
        the attempt has slept so long that its files were collected: run it again.
        """
        if not self._entries:
            raise InternalError(f"{self._folder}: an attempt without files cannot be committed")
        files = self.entries
        manifest = Manifest(
            stage=self.stage,
            key=self.key,
            stage_version=self._stage_version,
            attempt=self.attempt,
            content_digest=content_digest(files),
            inputs=self._inputs,
            config=self._config,
            files=files,
            needs=[Need(stage=s, key=k, alone=alone) for s, k, alone in sorted(self._needs)],
        )
        info = json.dumps(dict(run_info), indent=1, sort_keys=True, default=str).encode()
        self.store.put(f"{self._folder}/{self.attempt}/{RUN_INFO}", info)
        left_out = set() if manifest.needs else {"needs"}
        values = manifest.model_dump(mode="json", by_alias=True, exclude=left_out)
        place = f"{self._folder}/{MANIFEST}"
        checked = Moment()
        self._check_all_there()
        self.store.put_if_absent(place, canonical_json(values))
        artifact = open_artifact(self.store, self.stage, self.key)
        if artifact is None:
            raise InternalError(
                f"{self.store.uri}/{self._folder}: the manifest just written cannot be read back"
            )
        if artifact.manifest.attempt == self.attempt and checked.seconds_ago() >= CHECK_SECONDS:
            try:
                self._check_all_there()
            except InputMissing:
                # Asleep between the last check and the write: nobody shall rely on this manifest.
                self.store.delete(place)
                raise
        return artifact

    def _check_all_there(self) -> None:
        """InputMissing if a file that is not just uploaded has been collected.

        Before that: StoreUnavailable if files of this key are being collected right now. Whoever
        collects says so first and looks for pins second, we have our pin first and look second.
        """
        old = [entry for entry in self.entries if self._may_be_old(entry)]
        if old and is_collected(self.store, self.stage, self.key):
            raise StoreUnavailable(
                f"{self.store.uri}/{self._folder} is being collected at this moment: run it again"
            )
        for entry in old:
            self._check_there(entry)

    def _may_be_old(self, entry: FileEntry) -> bool:
        adopted = entry.attempt != self.attempt
        return adopted or self._seen[entry.name].seconds_ago() >= CHECK_SECONDS

    def _check_there(self, entry: FileEntry) -> None:
        place = f"{self._folder}/{entry.attempt}/{self._name(entry.name)}"
        info = self.store.head(place)
        if info is None or info.size != entry.size:
            raise InputMissing(
                f"{self.store.url(place)} is not there with {entry.size} bytes: attempt"
                f" {entry.attempt} did not finish it, or it was collected; run it again"
            )

    def _name(self, name: str) -> str:
        try:
            return _check_name(name)
        except ValueError as error:
            raise InternalError(str(error)) from None

    def _new(self, name: str, size: int, sha256: str) -> FileEntry:
        """The entry for a file about to be uploaded; nothing is uploaded over another content."""
        known = self._entries.get(self._name(name))
        if known is not None and (known.size, known.sha256) != (size, sha256):
            raise InternalError(f"{self._folder}: {name} was added twice with different content")
        return FileEntry(name=name, size=size, sha256=sha256, attempt=self.attempt)

    def _add(self, entry: FileEntry, moment: Moment) -> FileEntry:
        known = self._entries.get(entry.name)
        if known is not None and (known.size, known.sha256) != (entry.size, entry.sha256):
            raise InternalError(
                f"{self._folder}: {entry.name} was added twice with different content"
            )
        self._entries[entry.name] = entry
        self._seen[entry.name] = moment
        return entry
