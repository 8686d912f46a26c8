"""Names of what the controller makes: the same for the same work, whoever makes it and when."""

from __future__ import annotations

import hashlib

from hdgan.controller.facts import Kind
from hdgan.controller.settings import DEFAULT_STORE

KEY_DIGITS = 40
"""Of an artifact's key in labels: more than any two keys share, less than a label's 63."""
NAME_DIGITS = 16


def place_key(key: str, store: str | None) -> str:
    """What stands for a key in names and labels: Jobs of one key share their work only where it
    goes into the same store."""
    if store is None or store == DEFAULT_STORE:
        return key
    return hashlib.sha256(f"{store}/{key}".encode()).hexdigest()


def job_name(stage: str, key: str, kind: Kind, attempt: int) -> str:
    """Name of a Job, and of the ConfigMap and Service that belong to it: at most 48 characters, so
    that the pods' names (11 more, with an index) are valid host names.

    Two runs that need the same artifact find the same name, so there is one Job.
    """
    short = "" if kind == "whole" else f"-{kind}"
    return f"{stage}{short}-{key[:NAME_DIGITS]}-{attempt}"


def claim_name(key: str) -> str:
    """Name of the PersistentVolumeClaim with the features of a key."""
    return f"features-{key[:NAME_DIGITS]}"


def key_label(key: str) -> str:
    """A key as a label's value."""
    return key[:KEY_DIGITS]
