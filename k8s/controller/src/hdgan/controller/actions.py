"""What `decide` may ask to be done. All of it can be done twice without harm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hdgan.controller.unit import Unit


@dataclass(frozen=True)
class Pin:
    """Look at slides and initial networks, and write the frozen run into the store."""


@dataclass(frozen=True)
class Observe:
    """Look at what exists in the store."""


@dataclass(frozen=True)
class Publish:
    """Make a release of the dataset, unless it is one already."""


@dataclass(frozen=True)
class ReadSavedStep:
    """Look how far the saved work of a stage is."""

    stage: str
    key: str


@dataclass(frozen=True)
class CreateJob:
    """Make the Job of an attempt, and all that belongs to it; join it where it exists."""

    unit: Unit
    attempt: int


@dataclass(frozen=True)
class OwnJob:
    """Become an owner of a Job another run has made."""

    job: str


@dataclass(frozen=True)
class DisownJob:
    """Stop being an owner of a Job others need."""

    job: str


@dataclass(frozen=True)
class DeleteJob:
    """Delete a Job once its pods are gone (foreground)."""

    job: str


@dataclass(frozen=True)
class ForceDeletePods:
    """Delete pods of a node that does not answer, without waiting for it."""

    pods: tuple[str, ...]


@dataclass(frozen=True)
class DeleteClaim:
    """Delete the volume with the features of this key."""

    key: str


@dataclass(frozen=True)
class SetTtl:
    """Let a finished Job go after a while: its outcome is in status."""

    job: str


Action = (
    Pin
    | Observe
    | Publish
    | ReadSavedStep
    | CreateJob
    | OwnJob
    | DisownJob
    | DeleteJob
    | ForceDeletePods
    | DeleteClaim
    | SetTtl
)


@dataclass(frozen=True)
class Event:
    """What is told to people: reason in one word, message in plain ones."""

    kind: Literal["Normal", "Warning"]
    reason: str
    message: str
