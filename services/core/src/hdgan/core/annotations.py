"""Versions of the annotations of one candidates artifact.

`annotations/<candidates content digest>/<seq>.json` points to an artifact of stage `annotations`.
Pointers are created, never changed, with numbers that follow each other from 1: the highest is the
current one, and finding it needs no listing.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from hdgan.core.artifact import Artifact, open_artifact
from hdgan.core.bounded_reading import read_object
from hdgan.core.canonical import canonical_json
from hdgan.core.errors import InputMissing, RequestError
from hdgan.core.json_documents import parse_model
from hdgan.core.store import Store

STAGE = "annotations"
CANDIDATE_KEYWORD = "hdgan-candidate"
"""Where a candidate's id travels: text chunk of its PNG, property of its GeoJSON."""
MAX_VERSIONS = 999_999
MAX_POINTER_BYTES = 1 << 16
MAX_AUTHOR = 200
"""Characters of a name."""


class Pointer(BaseModel):
    """What a version's file says."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, alias_generator=to_camel, populate_by_name=True
    )

    seq: Annotated[int, Field(ge=1, le=MAX_VERSIONS)]
    key: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    content_digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    author: Annotated[str, Field(max_length=MAX_AUTHOR)] = ""
    """Who imported it; here as the artifact may be one that somebody else has made before."""
    date: Annotated[str, Field(max_length=MAX_AUTHOR)] = ""


def current(store: Store, candidates_digest: str) -> Artifact | None:
    """The newest annotations of these candidates, or None. InputMissing if they were deleted."""
    seq = latest_version(store, candidates_digest)
    return version(store, candidates_digest, seq) if seq else None


def version(store: Store, candidates_digest: str, seq: int) -> Artifact:
    """The annotations of version `seq` (from 1)."""
    pointer = read_pointer(store, candidates_digest, seq)
    artifact = open_artifact(store, STAGE, pointer.key)
    if artifact is None or artifact.content_digest != pointer.content_digest:
        raise InputMissing(
            f"{store.url(_place(candidates_digest, seq))} points to"
            f" artifacts/{STAGE}/{pointer.key}, which is not there or is another one: restore it,"
            " or import the annotations again"
        )
    return artifact


def latest_version(store: Store, candidates_digest: str) -> int:
    """Number of the newest version, 0 if there is none. About 2 log2(n) look-ups."""
    low, high = 0, 1  # version `low` exists (or is 0); look for a `high` that does not
    while high <= MAX_VERSIONS and store.head(_place(candidates_digest, high)) is not None:
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        exists = (
            middle <= MAX_VERSIONS and store.head(_place(candidates_digest, middle)) is not None
        )
        low, high = (middle, high) if exists else (low, middle)
    return low


def publish(store: Store, candidates_digest: str, artifact: Artifact) -> int:
    """Make a committed annotations artifact the current version; returns its number.

    Publishing what is current already changes nothing. Two people at once get two numbers.
    """
    seq = latest_version(store, candidates_digest)
    if seq and read_pointer(store, candidates_digest, seq).key == artifact.manifest.key:
        return seq
    while seq < MAX_VERSIONS:
        if publish_next(store, candidates_digest, artifact, after=seq) is not None:
            return seq + 1
        seq += 1
    raise _too_many(candidates_digest)


def publish_next(
    store: Store,
    candidates_digest: str,
    artifact: Artifact,
    *,
    after: int,
    author: str = "",
    date: str = "",
) -> int | None:
    """Make a committed annotations artifact version `after` + 1; returns its number.

    None when there is such a version already: for who has built on version `after`.
    """
    if artifact.manifest.stage != STAGE:
        raise RequestError(f"an artifact of stage {artifact.manifest.stage} holds no annotations")
    if after >= MAX_VERSIONS:
        raise _too_many(candidates_digest)
    pointer = Pointer(
        seq=after + 1,
        key=artifact.manifest.key,
        content_digest=artifact.content_digest,
        author=author[:MAX_AUTHOR],
        date=date[:MAX_AUTHOR],
    )
    document = canonical_json(pointer.model_dump(mode="json", by_alias=True, exclude_defaults=True))
    created = store.put_if_absent(_place(candidates_digest, pointer.seq), document)
    # Ours also if it was a retry of ours that got there first.
    if created or read_pointer(store, candidates_digest, pointer.seq).key == pointer.key:
        return pointer.seq
    return None


def _too_many(candidates_digest: str) -> RequestError:
    return RequestError(f"candidates {candidates_digest} have {MAX_VERSIONS} annotation versions")


def _place(candidates_digest: str, seq: int) -> str:
    if not re.match(r"^[0-9a-f]{64}$", candidates_digest):
        raise RequestError(f"{candidates_digest!r} is no content digest: it has 64 hex digits")
    return f"annotations/{candidates_digest}/{seq:06d}.json"


def read_pointer(store: Store, candidates_digest: str, seq: int) -> Pointer:
    """What version `seq` (from 1) points to. KeyMissing if there is none, InputMissing if it is
    damaged."""
    place = _place(candidates_digest, seq)
    try:
        return parse_model(Pointer, read_object(store, place, MAX_POINTER_BYTES))
    except ValueError as error:
        raise InputMissing(
            f"{store.url(place)} is damaged: it should point to annotations. Delete it and import"
            " them again"
        ) from error
