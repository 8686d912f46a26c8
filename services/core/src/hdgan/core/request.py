"""The one document a stage is started with: what to make, from what, where to put it.

The local runner and the controller write the same `StageRequest`, to a file named by the
environment variable ``HDGAN_REQUEST``. It never carries secrets and never long lists: anything
long is an object in the store that the request names.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError
from pydantic.alias_generators import to_camel

from hdgan.core.bounded_reading import TooLarge, read_file
from hdgan.core.errors import RequestError
from hdgan.core.json_documents import JsonError, parse_model

REQUEST_VARIABLE = "HDGAN_REQUEST"
PART_VARIABLE = "JOB_COMPLETION_INDEX"
MAX_REQUEST_BYTES = 1 << 20

Hex64 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]


class _Document(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, alias_generator=to_camel, populate_by_name=True
    )


class InputRef(_Document):
    """An artifact this stage reads, named by key and pinned to its content."""

    stage: Name
    key: Hex64
    content_digest: Hex64


class StageRequest(_Document):
    """Everything a stage is told. Paths inside `scratch` and keys inside `store` are its own."""

    run: Name
    """Name of the run this work was asked for by: for people and metrics, never part of a key."""
    stage: Name
    """Which of the service's stages to run, e.g. `candidates` of the synthesizer."""
    service: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    """Python module of the service below `hdgan`, e.g. `gan_trainer`."""
    config: dict[str, JsonValue]
    """That stage's section of the resolved run, camelCase."""
    context: dict[str, JsonValue] = {}
    """Small values of other sections that the stage needs, e.g. `classes`, `mpp`."""
    inputs: dict[str, InputRef] = {}
    """Artifacts to read, by the name the stage knows them under."""
    key: Hex64
    """Key of the artifact to make."""
    stage_version: Annotated[int, Field(ge=1)]
    """Version of the stage that the key was computed for."""
    parts: Annotated[int, Field(ge=1, le=100_000)] = 1
    """How many parts share the work; the part index comes from `JOB_COMPLETION_INDEX`."""
    commit: bool = False
    """Merge the finished parts into the artifact instead of working as one of them."""
    store: Annotated[str, Field(min_length=1)]
    """URI of the store, `file:///...` or `s3://bucket/prefix`."""
    scratch: Annotated[str, Field(min_length=1)]
    """Folder on a fast local disk; what is there may be gone next time."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: Annotated[int, Field(ge=1)] | None = None
    """CPU threads for numerical libraries; null means all cores."""


def parse_request(text: str | bytes, *, source: str = "request") -> StageRequest:
    """The request in `text` (JSON). Raises RequestError naming every wrong field."""
    if len(text) > MAX_REQUEST_BYTES:
        raise RequestError(
            f"{source}: {len(text)} bytes, at most {MAX_REQUEST_BYTES} are read. Long lists belong "
            "into the store; the request names them"
        )
    try:
        return parse_model(StageRequest, text, max_bytes=MAX_REQUEST_BYTES)
    except JsonError as error:
        raise RequestError(f"{source}: not a valid stage request: {error}") from None
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in item['loc']) or 'document'}: {item['msg']}"
            for item in error.errors(include_url=False, include_input=False)
        )
        raise RequestError(f"{source}: not a valid stage request: {problems}") from error


def read_request(environ: Mapping[str, str] = os.environ) -> StageRequest:
    """The request named by `HDGAN_REQUEST`."""
    name = environ.get(REQUEST_VARIABLE)
    if not name:
        raise RequestError(
            f"{REQUEST_VARIABLE} is not set. A service is started by `hdgan run` or by the "
            f"controller; by hand, set {REQUEST_VARIABLE} to a file with a stage request"
        )
    path = Path(name)
    try:
        text = read_file(path, MAX_REQUEST_BYTES)
    except TooLarge as error:
        raise RequestError(f"{REQUEST_VARIABLE}={name}: {error}") from None
    except OSError as error:
        raise RequestError(
            f"{REQUEST_VARIABLE}={name}: cannot read it: {error.strerror}"
        ) from error
    return parse_request(text, source=name)


def read_part(request: StageRequest, environ: Mapping[str, str] = os.environ) -> int:
    """Index of the part this process is, 0..parts-1. A commit request is no part and gets 0."""
    text = environ.get(PART_VARIABLE)
    if request.commit or not text:
        if request.parts > 1 and not request.commit:
            raise RequestError(
                f"the request has {request.parts} parts but {PART_VARIABLE} is not set: "
                "set it to the index of the part this process is to do"
            )
        return 0
    if not re.fullmatch("[0-9]{1,9}", text) or int(text) >= request.parts:
        raise RequestError(
            f"{PART_VARIABLE}={text[:40]!r}: must be a whole number from 0 to {request.parts - 1}, "
            "because the request has "
            + ("one part" if request.parts == 1 else f"{request.parts} parts")
        )
    return int(text)
