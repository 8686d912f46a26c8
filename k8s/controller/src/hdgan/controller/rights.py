"""What the controller may have to do at the API server, for `check` and for whoever grants it."""

from __future__ import annotations

from typing import Final

Right = tuple[str, str, str]
"""API group, resource (with its subresource) and verb."""


def _of(group: str, resource: str, verbs: str) -> set[Right]:
    return {(group, resource, verb) for verb in verbs.split()}


NAMESPACE_RIGHTS: Final[frozenset[Right]] = frozenset(
    _of("hdgan.io", "datasetruns", "get list watch")
    | _of("hdgan.io", "datasetruns/status", "update")
    | _of("batch", "jobs", "get list watch create patch delete")
    | _of("", "pods", "list watch delete")
    | _of("", "configmaps", "get create delete")
    | _of("", "services", "get create delete")
    | _of("", "persistentvolumeclaims", "get create patch delete")
    | _of("", "events", "get list create patch")
)
"""In each namespace whose runs are seen to."""

LEASE_RIGHTS: Final[frozenset[Right]] = frozenset(
    _of("coordination.k8s.io", "leases", "get create update")
)
"""In the controller's own namespace."""
