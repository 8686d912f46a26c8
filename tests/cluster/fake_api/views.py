"""How a stored object looks at an API version: events are stored once and shown in two ways."""

from __future__ import annotations

import copy
from typing import Any

from cluster.fake_api.resources import NEW_EVENTS, Resource

Json = dict[str, Any]

# Names in core/v1 (as stored) and in events.k8s.io/v1.
_EVENT_NAMES = {
    "involvedObject": "regarding",
    "message": "note",
    "source": "deprecatedSource",
    "firstTimestamp": "deprecatedFirstTimestamp",
    "lastTimestamp": "deprecatedLastTimestamp",
    "count": "deprecatedCount",
    "reportingComponent": "reportingController",
}


def shown(stored: Json, resource: Resource) -> Json:
    """The stored object as this resource shows it. Shares parts with it: not to be changed."""
    result = {**stored, "apiVersion": resource.api_version, "kind": resource.kind}
    if resource == NEW_EVENTS:
        for old, new in _EVENT_NAMES.items():
            if old in result:
                result[new] = result.pop(old)
        for name in ("reportingController", "reportingInstance", "note"):
            if not result.get(name):
                result.pop(name, None)
    return result


def stored(value: Json, resource: Resource) -> Json:
    """What a client has sent, as it is stored."""
    result = copy.deepcopy(value)
    result.pop("apiVersion", None)
    result.pop("kind", None)
    if resource == NEW_EVENTS:
        for old, new in _EVENT_NAMES.items():
            if new in result:
                result[old] = result.pop(new)
        result.setdefault("involvedObject", {})
    return result
