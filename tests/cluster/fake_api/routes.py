"""From a path to what it names."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote

from cluster.fake_api.api import Api
from cluster.fake_api.resources import NAMESPACES, Resource


@dataclass(frozen=True)
class Route:
    """A kind, and of it one object, or those of a namespace, or all."""

    resource: Resource
    namespace: str = ""
    name: str = ""
    subresource: str = ""

    def verb(self, method: str, *, watch: bool) -> str:
        """The verb as access rules name it. Empty for a method that does not fit."""
        if self.subresource == "status" and not self.resource.status:
            return ""
        if self.name:
            one = {"GET": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
            if self.subresource == "binding":
                one = {"POST": "create"}
            elif self.subresource == "log":
                one = {"GET": "get"}
            elif self.subresource:
                del one["DELETE"]
            return one.get(method, "")
        if method == "POST" and self.resource.namespaced and not self.namespace:
            return ""
        many = {"GET": "watch" if watch else "list", "POST": "create", "DELETE": "deletecollection"}
        return many.get(method, "")


def find(api: Api, path: str) -> Route | None:
    """What the path names. None when there is no such kind."""
    parts = [unquote(part) for part in path.strip("/").split("/")]
    if parts[0] == "api" and len(parts) > 2:
        group, version, rest = "", parts[1], parts[2:]
    elif parts[0] == "apis" and len(parts) > 3:
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        return None
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 2 and rest[2] != "status":
        namespace, rest = rest[1], rest[2:]
    if len(rest) > 3:
        return None
    plural, name, subresource = (*rest, "", "")[:3]
    resource = api.resource(group, version, plural)
    if resource is None or (namespace and not resource.namespaced):
        return None
    if name and resource.namespaced and not namespace:
        return None
    known = {"", "status", *(["binding", "log"] if plural == "pods" else [])}
    if subresource not in known:
        return None
    if resource == NAMESPACES and subresource:
        return None
    return Route(resource, namespace, name, subresource)
