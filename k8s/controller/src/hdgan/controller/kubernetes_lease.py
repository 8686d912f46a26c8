"""The Lease in the API server."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from kubernetes.client import CoordinationV1Api, V1Lease, V1LeaseSpec, V1ObjectMeta
from kubernetes.client.exceptions import ApiException

from hdgan.controller.candidacy import Record
from hdgan.core.errors import HdganError


class LeaseChanged(HdganError):
    """The Lease is not the one that was to be replaced, or exists already (409)."""

    exit_code = 75


class LeaseApi(Protocol):
    """The Lease. Calls may take any time and raise anything; only LeaseChanged means something."""

    def get(self) -> Record | None:
        """The Lease, None if there is none. It must be read from the store, not from a cache."""

    def create(self, record: Record) -> Record:
        """Create it. LeaseChanged if it exists."""

    def replace(self, record: Record) -> Record:
        """Replace the one with the record's `uid` and `version`. LeaseChanged if it is another."""


class KubernetesLease:
    """The Lease `name` in `namespace`. The client is best one of its own with `retries = False`:
    a pool that the controller's other requests fill makes renewals late."""

    def __init__(
        self, api: CoordinationV1Api, namespace: str, name: str, retry_seconds: float
    ) -> None:
        self._api = api
        self._namespace = namespace
        self._name = name
        # Of connecting and of each read: frees most threads that were given up on.
        self._timeout = (float(retry_seconds), float(retry_seconds))

    def get(self) -> Record | None:
        """The Lease, None if there is none."""
        try:
            lease = self._api.read_namespaced_lease(
                self._name, self._namespace, _request_timeout=self._timeout
            )
        except ApiException as error:
            if error.status == 404:
                return None
            raise
        return _read(lease)

    def create(self, record: Record) -> Record:
        """Create it. LeaseChanged if it exists."""
        try:
            lease = self._api.create_namespaced_lease(
                self._namespace, self._body(record), _request_timeout=self._timeout
            )
        except ApiException as error:
            if error.status == 409:
                raise LeaseChanged("the Lease exists already") from None
            raise
        return _read(lease)

    def replace(self, record: Record) -> Record:
        """Replace the one with the record's uid and version. LeaseChanged if it is another."""
        try:
            lease = self._api.replace_namespaced_lease(
                self._name,
                self._namespace,
                self._body(record),
                _request_timeout=self._timeout,
            )
        except ApiException as error:
            if error.status in (404, 409):
                raise LeaseChanged("somebody else changed the Lease") from None
            raise
        return _read(lease)

    def _body(self, record: Record) -> V1Lease:
        if record.source is None:
            lease = V1Lease(
                api_version="coordination.k8s.io/v1",
                kind="Lease",
                metadata=V1ObjectMeta(name=self._name, namespace=self._namespace),
            )
        else:
            # With uid and resourceVersion: the server refuses to replace any other.
            lease = record.source.model_copy(deep=True)
        spec = lease.spec or V1LeaseSpec()
        spec.holder_identity = record.holder
        spec.lease_duration_seconds = record.seconds
        spec.lease_transitions = record.transitions
        spec.acquire_time = _micro_time(record.acquired)
        spec.renew_time = _micro_time(record.renewed)
        lease.spec = spec
        return lease


def _read(lease: V1Lease) -> Record:
    metadata = lease.metadata or V1ObjectMeta()
    if not metadata.uid or not metadata.resource_version:
        raise ValueError("the API server's answer is a Lease without uid or resourceVersion")
    spec = lease.spec or V1LeaseSpec()
    return Record(
        holder=spec.holder_identity or "",
        seconds=spec.lease_duration_seconds,
        transitions=spec.lease_transitions or 0,
        acquired=spec.acquire_time,
        renewed=spec.renew_time,
        uid=metadata.uid,
        version=metadata.resource_version,
        source=lease,
    )


def _micro_time(moment: datetime | None) -> datetime | None:
    # The server wants six digits after the point; the client writes none if they are all zero.
    return moment.replace(microsecond=1) if moment and not moment.microsecond else moment
