"""What the server says when it refuses: Kubernetes `Status` bodies with their HTTP codes."""

from __future__ import annotations

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


class Problem(Exception):
    """An answer that is not the one hoped for."""

    def __init__(
        self, code: int, message: str, reason: str | None = None, details: Json | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.reason = reason or REASONS.get(code, "Unknown")
        self.details = details

    def status(self) -> Json:
        """The body of the answer."""
        body: Json = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
        }
        if self.details:
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


def _quoted(value: object) -> str:
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, bool):
        return str(value).lower()
    if value is None:
        return "null"
    return str(value)


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
    lines = [cause.line() for cause in causes]
    told = lines[0] if len(lines) == 1 else "[" + ", ".join(lines) + "]"
    kind = f"{resource.kind}.{resource.group}" if resource.group else resource.kind
    details: Json = {"name": name, "kind": resource.kind}
    if resource.group:
        details["group"] = resource.group
    details["causes"] = [
        {"reason": cause.reason, "message": cause.message, "field": cause.field} for cause in causes
    ]
    return Problem(422, f'{kind} "{name}" is invalid: {told}', details=details)


def bad_request(message: str) -> Problem:
    return Problem(400, message)


def undecodable(resource: Resource, why: str) -> Problem:
    """The body is not an object of this kind."""
    return bad_request(
        f'{resource.kind} in version "{resource.version}" cannot be handled as a '
        f"{resource.kind}: {why}"
    )


def too_old(version: int, oldest: int) -> Problem:
    return Problem(410, f"too old resource version: {version} ({oldest})")


def too_new(version: int, newest: int) -> Problem:
    return Problem(
        504,
        f"Too large resource version: {version}, current: {newest}",
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
