"""JSON documents of artifacts, read within bounds."""

from __future__ import annotations

from typing import Any

from hdgan.core.artifact import Artifact
from hdgan.core.errors import InputMissing
from hdgan.core.json_documents import MAX_BYTES, JsonError, parse_object


def read_json(artifact: Artifact, name: str) -> dict[str, Any]:
    """A JSON object of an artifact. InputMissing when it is none: the artifact is damaged."""
    try:
        if artifact.entry(name).size > MAX_BYTES:
            raise JsonError(f"it has {artifact.entry(name).size} bytes")
        # NaN: what a training that diverged has measured.
        return parse_object(artifact.read(name), nan=True)
    except JsonError as error:
        raise InputMissing(f"{artifact.uri(name)}: is not JSON: {error}") from None
