"""The kinds the server knows: the built-in ones here, custom ones from their definitions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True)
class Resource:
    """One kind at one version, and how the server treats it.

    `schema` is the structural schema of a custom kind and None for a built-in one, whose fields
    are those of the official client's model of the name `model`.
    """

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    status: bool = False
    generation: bool = False
    model: str | None = None
    schema: Json | None = field(default=None, hash=False, compare=False)
    selectable: tuple[str, ...] = ()
    # A PUT may leave metadata.resourceVersion out.
    unconditional: bool = True
    # A PUT to a name that is not there makes the object.
    create_on_update: bool = False
    # What a DELETE answers when the object is gone at once: the object, or a Status.
    returns_deleted: bool = False

    @property
    def type_key(self) -> str:
        """Where its objects are stored: the same for all versions of a kind."""
        if self.plural == "events":
            return "events"
        return self.qualified

    @property
    def qualified(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def custom(self) -> bool:
        return self.model is None


def _core(plural: str, kind: str, **more: Any) -> Resource:
    return Resource("", "v1", plural, kind, model=more.pop("model", f"V1{kind}"), **more)


NAMESPACES = _core("namespaces", "Namespace", namespaced=False, returns_deleted=True)
PODS = _core("pods", "Pod", status=True, generation=True, returns_deleted=True)
CLAIMS = _core("persistentvolumeclaims", "PersistentVolumeClaim", status=True, returns_deleted=True)
CONFIG_MAPS = _core("configmaps", "ConfigMap")
SECRETS = _core("secrets", "Secret")
EVENTS = _core("events", "Event", model="CoreV1Event", create_on_update=True)
NEW_EVENTS = Resource(
    "events.k8s.io", "v1", "events", "Event", model="EventsV1Event", create_on_update=True
)
JOBS = Resource("batch", "v1", "jobs", "Job", status=True, generation=True, model="V1Job")
LEASES = Resource(
    "coordination.k8s.io",
    "v1",
    "leases",
    "Lease",
    model="V1Lease",
    unconditional=False,
    create_on_update=True,
)
DEFINITIONS = Resource(
    "apiextensions.k8s.io",
    "v1",
    "customresourcedefinitions",
    "CustomResourceDefinition",
    namespaced=False,
    status=True,
    generation=True,
    model="V1CustomResourceDefinition",
    unconditional=False,
    returns_deleted=True,
)

BUILT_IN = (
    NAMESPACES,
    PODS,
    CONFIG_MAPS,
    SECRETS,
    EVENTS,
    NEW_EVENTS,
    JOBS,
    LEASES,
    DEFINITIONS,
    _core("services", "Service"),
    CLAIMS,
    _core("serviceaccounts", "ServiceAccount"),
    _core("nodes", "Node", namespaced=False),
)


def of_definition(definition: Json) -> list[Resource]:
    """The kinds a CustomResourceDefinition brings, one for each version that is served."""
    spec = definition["spec"]
    return [
        Resource(
            spec["group"],
            version["name"],
            spec["names"]["plural"],
            spec["names"]["kind"],
            namespaced=spec["scope"] == "Namespaced",
            status="status" in version.get("subresources", {}),
            generation=True,
            schema=version.get("schema", {}).get("openAPIV3Schema", {}),
            selectable=tuple(
                one["jsonPath"].removeprefix(".") for one in version.get("selectableFields", [])
            ),
            unconditional=False,
        )
        for version in spec["versions"]
        if version.get("served")
    ]
