"""What a client can find out about the server: version, groups, kinds, health."""

from __future__ import annotations

from typing import Any

from cluster.fake_api.api import Api
from cluster.fake_api.resources import Resource

Json = dict[str, Any]

VERSION = {
    "major": "1",
    "minor": "37",
    "gitVersion": "v1.37.0-fake",
    "gitCommit": "",
    "gitTreeState": "clean",
    "buildDate": "2026-01-01T00:00:00Z",
    "goVersion": "",
    "compiler": "",
    "platform": "linux/amd64",
}
HEALTH = ("/healthz", "/livez", "/readyz")

_VERBS = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]


def find(api: Api, path: str) -> Json | None:
    """The document at this path. None when it is none of discovery."""
    path = path.rstrip("/")
    if path == "/version":
        return dict(VERSION)
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}
    groups = _groups(api)
    if path == "/apis":
        return {
            "kind": "APIGroupList",
            "apiVersion": "v1",
            "groups": [_group(name, versions) for name, versions in groups.items() if name],
        }
    parts = path.strip("/").split("/")
    if parts == ["api", "v1"]:
        return _kinds(api, "", "v1")
    if parts[0] == "apis" and len(parts) in (2, 3) and parts[1] in groups:
        if len(parts) == 2:
            found = _group(parts[1], groups[parts[1]])
            return {"kind": "APIGroup", "apiVersion": "v1", **found}
        if parts[2] in groups[parts[1]]:
            return _kinds(api, parts[1], parts[2])
    return None


def _groups(api: Api) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for resource in api.resources():
        versions = groups.setdefault(resource.group, [])
        if resource.version not in versions:
            versions.append(resource.version)
    return groups


def _group(name: str, versions: list[str]) -> Json:
    listed = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"name": name, "versions": listed, "preferredVersion": listed[0]}


def _kinds(api: Api, group: str, version: str) -> Json:
    listed: list[Json] = []
    for resource in api.resources():
        if (resource.group, resource.version) == (group, version):
            listed.append(_kind(resource, resource.plural, _VERBS))
            if resource.status:
                verbs = ["get", "patch", "update"]
                listed.append(_kind(resource, f"{resource.plural}/status", verbs))
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": f"{group}/{version}" if group else version,
        "resources": listed,
    }


def _kind(resource: Resource, name: str, verbs: list[str]) -> Json:
    return {
        "name": name,
        "singularName": resource.kind.lower(),
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": verbs,
    }
