"""What the server says when it refuses: Kubernetes `Status` bodies with their HTTP codes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from cluster.fake_api.resources import Resource

Json = dict[str, Any]

REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    409: "Conflict",
    410: "Expired",
    413: "RequestEntityTooLarge",
    415: "UnsupportedMediaType",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}


# Characters of a body that cannot be read.
_MOST_SHOWN = 30


class Problem(Exception):
    """An answer that is not the one hoped for."""

    def __init__(
        self, code: int, message: str, reason: str | None = None, details: Json | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        # An empty reason: the server gives none.
        self.reason = REASONS.get(code, "Unknown") if reason is None else reason
        self.details = details
        # What the client is told besides.
        self.warnings: tuple[str, ...] = ()

    def status(self) -> Json:
        """The body of the answer."""
        body: Json = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "code": self.code,
        }
        if self.reason:
            body["reason"] = self.reason
        if self.details is not None:
            body["details"] = self.details
        return body


@dataclass(frozen=True)
class Cause:
    """One field that is wrong."""

    field: str
    message: str
    reason: str = "FieldValueInvalid"

    def line(self) -> str:
        return f"{self.field}: {self.message}"


def wrong(field: str, value: object, why: str) -> Cause:
    """The field has a value it must not have."""
    return Cause(field, f"Invalid value: {_quoted(value)}: {why}")


def required(field: str, why: str = "") -> Cause:
    """The field is missing."""
    return Cause(field, "Required value" + (f": {why}" if why else ""), reason="FieldValueRequired")


def forbidden_field(field: str, why: str) -> Cause:
    """The field must not be set or changed like this."""
    return Cause(field, f"Forbidden: {why}", reason="FieldValueForbidden")


def unsupported(field: str, value: object, allowed: list[str]) -> Cause:
    """The field must have one of a few values."""
    listed = ", ".join(_quoted(one) for one in allowed)
    return Cause(
        field,
        f"Unsupported value: {_quoted(value)}: supported values: {listed}",
        reason="FieldValueNotSupported",
    )


def too_many(field: str, size: int, most: int) -> Cause:
    """The field has too many items."""
    noun = "item" if most == 1 else "items"
    return Cause(
        field, f"Too many: {size}: must have at most {most} {noun}", reason="FieldValueTooMany"
    )


def too_long(field: str, most: int) -> Cause:
    """The field's value is too long."""
    return Cause(field, f"Too long: may not be more than {most} bytes", reason="FieldValueTooLong")


def _quoted(value: object) -> str:
    """A value as the server prints it: as JSON."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)


def go_text(value: object) -> str:
    """A decoded JSON value as Go prints it with %v."""
    if isinstance(value, dict):
        return "map[" + " ".join(f"{key}:{go_text(value[key])}" for key in sorted(value)) + "]"
    if isinstance(value, list):
        return "[" + " ".join(go_text(one) for one in value) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return "<nil>" if value is None else str(value)


def _kind(resource: Resource) -> str:
    return f"{resource.kind}.{resource.group}" if resource.group else resource.kind


def _details(resource: Resource, name: str) -> Json:
    details: Json = {"name": name, "kind": resource.plural}
    if resource.group:
        details["group"] = resource.group
    return details


def not_found(resource: Resource, name: str) -> Problem:
    return Problem(
        404, f'{resource.qualified} "{name}" not found', details=_details(resource, name)
    )


def already_exists(resource: Resource, name: str) -> Problem:
    return Problem(
        409,
        f'{resource.qualified} "{name}" already exists',
        reason="AlreadyExists",
        details=_details(resource, name),
    )


def mistaken(resource: Resource, name: str, what: str, wanted: str, has: str) -> Problem:
    """A precondition of a deletion does not hold. Here the server names the kind."""
    since = "deleted and then recreated" if what == "UID" else "modified"
    return Problem(
        409,
        f'Operation cannot be fulfilled on {_kind(resource)} "{name}": the {what} in the '
        f"precondition ({wanted}) does not match the {what} in record ({has}). The object might "
        f"have been {since}",
        details={**_details(resource, name), "kind": resource.kind},
    )


def conflict(resource: Resource, name: str, why: str) -> Problem:
    return Problem(
        409,
        f'Operation cannot be fulfilled on {resource.qualified} "{name}": {why}',
        details=_details(resource, name),
    )


def stale(resource: Resource, name: str) -> Problem:
    return conflict(
        resource,
        name,
        "the object has been modified; please apply your changes to the latest version and try "
        "again",
    )


def forbidden(resource: Resource, name: str, why: str, causes: list[Json]) -> Problem:
    return Problem(
        403,
        f'{resource.qualified} "{name}" is forbidden: {why}',
        details={**_details(resource, name), "causes": causes},
    )


def invalid(resource: Resource, name: str, causes: list[Cause]) -> Problem:
    return invalid_as(resource.kind, resource.group, name, causes)


def invalid_as(kind: str, group: str, name: str, causes: list[Cause]) -> Problem:
    """As `invalid`, under a name of the server's choice: it does not always name the kind."""
    # Said once, listed each time.
    lines = list(dict.fromkeys(cause.line() for cause in causes))
    told = lines[0] if len(lines) == 1 else "[" + ", ".join(lines) + "]"
    details: Json = {"name": name, "kind": kind, "group": group}
    details = {key: value for key, value in details.items() if value}
    details["causes"] = [
        {"reason": cause.reason, "message": cause.message, "field": cause.field} for cause in causes
    ]
    shown = f"{kind}.{group}" if group else kind
    return Problem(422, f'{shown} "{name}" is invalid: {told}', details=details)


def invalid_patch(patch: str, why: str) -> Problem:
    """What a patch makes is not an object of the kind. `patch`: what the server shows of it."""
    return invalid_as("", "", "", [wrong("patch", patch, why)])


def unpatchable(message: str) -> Problem:
    """A JSON patch that cannot be carried out."""
    return Problem(422, message, details={})


def bad_request(message: str) -> Problem:
    return Problem(400, message)


def undecodable(resource: Resource, why: str, kind: str = "", version: str = "") -> Problem:
    """The body is not an object of this kind. `kind`, `version`: what it says it is."""
    return bad_request(
        f'{kind or resource.kind} in version "{version or resource.version}" cannot be handled as '
        f"a {resource.kind}: {why}"
    )


def unrecognized(resource: Resource, why: str, data: str) -> Problem:
    """The body does not even say what it is."""
    shown = data if len(data) <= _MOST_SHOWN else f"{data[:_MOST_SHOWN]} ..."
    return bad_request(
        f"the object provided is unrecognized (must be of type {resource.kind}): {why} "
        f"({shown or '<empty>'})"
    )


def too_old(version: int, oldest: int) -> Problem:
    return Problem(410, f"too old resource version: {version} ({oldest})")


def too_new(version: int, newest: int) -> Problem:
    return Problem(
        504,
        f"Timeout: Too large resource version: {version}, current: {newest}",
        details={
            "causes": [
                {
                    "reason": "ResourceVersionTooLarge",
                    "message": "Too large resource version",
                }
            ],
            "retryAfterSeconds": 1,
        },
    )
