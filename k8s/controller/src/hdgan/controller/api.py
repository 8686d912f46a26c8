"""Plain documents over the official client's connection: get, list, create, patch, delete, watch.

The client's own models take too long for thousands of pods and refuse fields of newer servers;
its configuration, authentication and connections are what is used of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal

import urllib3
from kubernetes.client import ApiClient
from kubernetes.client.exceptions import ApiException

from hdgan.core.errors import HdganError

Document = dict[str, Any]

RUNS: Final = "apis/hdgan.io/v1alpha1/namespaces/{namespace}/datasetruns"
JOBS: Final = "apis/batch/v1/namespaces/{namespace}/jobs"
PODS: Final = "api/v1/namespaces/{namespace}/pods"
EVENTS: Final = "api/v1/namespaces/{namespace}/events"
CONFIG_MAPS: Final = "api/v1/namespaces/{namespace}/configmaps"
SERVICES: Final = "api/v1/namespaces/{namespace}/services"
CLAIMS: Final = "api/v1/namespaces/{namespace}/persistentvolumeclaims"

PAGE: Final = 500
REQUEST_SECONDS: Final = 30.0
LONGEST_SILENCE: Final = 86_400.0
"""Seconds for which a followed log may have nothing to say."""
MERGE_PATCH: Final = "application/merge-patch+json"

Verb = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]


class ApiError(HdganError):
    """The API server refused, or did not answer (status 0)."""

    exit_code = 75

    def __init__(
        self, message: str, status: int = 0, reason: str = "", retry_after: float | None = None
    ) -> None:
        """retry_after: seconds for which the server wants to be left alone, where it said so."""
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.retry_after = retry_after


class NotFound(ApiError):
    """There is no such object."""


class Conflict(ApiError):
    """It was changed meanwhile, or exists already (`reason` tells which)."""


class Gone(ApiError):
    """The server does not remember this resourceVersion: list again."""


@dataclass(frozen=True)
class Listed:
    """Objects, and the resourceVersion from which to watch what comes after."""

    items: list[Document]
    version: str


class Api:
    """Requests to one API server. For several threads."""

    def __init__(self, client: ApiClient, *, request_seconds: float = REQUEST_SECONDS) -> None:
        """request_seconds: longest time for connecting and for the server to begin an answer."""
        self._client = client
        self._timeout = (0.3 * request_seconds, 0.7 * request_seconds)

    def get(self, collection: str, namespace: str, name: str) -> Document | None:
        """An object, None if there is none."""
        try:
            return self._call("GET", f"{_path(collection, namespace)}/{name}")
        except NotFound:
            return None

    def list(self, collection: str, namespace: str, **query: str) -> Listed:
        """All objects, in pages. `query`: labelSelector, fieldSelector."""
        items: list[Document] = []
        asked = {**query, "limit": str(PAGE)}
        while True:
            page = self._call("GET", _path(collection, namespace), query=asked)
            items += page.get("items") or []
            meta = page.get("metadata") or {}
            if not meta.get("continue"):
                return Listed(items, meta.get("resourceVersion", ""))
            asked["continue"] = meta["continue"]

    def create(self, collection: str, namespace: str, document: Document) -> Document | None:
        """Make an object; None if one of its name exists already. Unknown fields are refused."""
        try:
            return self._call(
                "POST",
                _path(collection, namespace),
                query={"fieldValidation": "Strict"},
                body=document,
            )
        except Conflict as conflict:
            if conflict.reason == "AlreadyExists":
                return None
            raise

    def replace(self, collection: str, namespace: str, document: Document) -> Document:
        """Write a whole object but its status. Conflict if it is not the version that was read.
        Unknown fields are refused."""
        path = f"{_path(collection, namespace)}/{document['metadata']['name']}"
        return self._call("PUT", path, query={"fieldValidation": "Strict"}, body=document)

    def replace_status(self, collection: str, namespace: str, document: Document) -> Document:
        """Write an object's status. Conflict if it is not the version that was read."""
        name = document["metadata"]["name"]
        path = f"{_path(collection, namespace)}/{name}/status"
        return self._call("PUT", path, query={"fieldValidation": "Strict"}, body=document)

    def patch(
        self, collection: str, namespace: str, name: str, change: Mapping[str, Any]
    ) -> Document:
        """Merge a change into an object. NotFound, Conflict with a resourceVersion in it."""
        path = f"{_path(collection, namespace)}/{name}"
        return self._call("PATCH", path, body=dict(change), content=MERGE_PATCH)

    def delete(
        self,
        collection: str,
        namespace: str,
        name: str,
        *,
        uid: str | None = None,
        propagation: Literal["Background", "Foreground"] = "Background",
        force: bool = False,
    ) -> None:
        """Delete an object; nothing happens if it has gone, or is another one than `uid`.

        force: without waiting for its node (pods).
        """
        options: Document = {"propagationPolicy": propagation}
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        if force:
            options["gracePeriodSeconds"] = 0
        try:
            self._call("DELETE", f"{_path(collection, namespace)}/{name}", body=options)
        except (NotFound, Conflict):
            return

    def watch(
        self, collection: str, namespace: str, version: str, *, seconds: float, **query: str
    ) -> Iterator[tuple[str, Document]]:
        """What happens after `version`: ADDED, MODIFIED, DELETED or BOOKMARK, and the object.

        Ends after `seconds`, or when nothing was heard for longer than that. Gone if the server
        does not remember the version.
        """
        asked = {
            **query,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(max(1, round(seconds))),
        }
        with self._answer(
            "GET", _path(collection, namespace), asked, None, None, seconds + 10.0
        ) as answer:
            for line in _lines(answer):
                if not line.strip():
                    continue
                event = json.loads(line)
                if event["type"] == "ERROR":
                    raise _refusal(int(event["object"].get("code", 0)), event["object"])
                yield event["type"], event["object"]

    def log(self, namespace: str, pod: str, container: str, *, follow: bool) -> Iterator[str]:
        """Lines of a container's log; with `follow` until it ends. ApiError 400 before it
        starts."""
        asked = {"container": container, **({"follow": "true"} if follow else {})}
        path = f"{_path(PODS, namespace)}/{pod}/log"
        silent = LONGEST_SILENCE if follow else None
        with self._answer("GET", path, asked, None, None, silent) as answer:
            for line in _lines(answer, unfinished=True):
                yield line.decode("utf-8", "replace")

    def _call(
        self,
        verb: Verb,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Document | None = None,
        content: str = "application/json",
    ) -> Document:
        with self._answer(verb, path, query or {}, body, content, None) as answer:
            try:
                document: Document = json.loads(answer.read())
            except (urllib3.exceptions.HTTPError, ValueError) as error:
                raise ApiError(f"{verb} {path}: the answer broke off ({error})") from error
            return document

    @contextmanager
    def _answer(
        self,
        verb: Verb,
        path: str,
        query: Mapping[str, str],
        body: Document | None,
        content: str | None,
        read_seconds: float | None,
    ) -> Iterator[Any]:
        headers = {"Accept": "application/json, */*"}
        if body is not None and content is not None:
            headers["Content-Type"] = content
        method, url, sent, data, form = self._client.param_serialize(
            verb,
            f"/{path}",
            query_params=list(query.items()),
            header_params=headers,
            body=body,
            auth_settings=["BearerToken"],
        )
        connect, read = self._timeout
        try:
            answer = self._client.call_api(
                method, url, sent, data, form, (connect, read_seconds or read)
            )
        except (ApiException, urllib3.exceptions.HTTPError, OSError) as error:
            # The client wraps what TLS says; everything else comes through as it is.
            raise ApiError(f"{verb} {path}: no answer ({_short(error)})") from error
        try:
            if not 200 <= answer.status <= 299:
                raise _refusal(answer.status, _body(answer), answer.headers.get("Retry-After"))
            yield answer
        except urllib3.exceptions.HTTPError as error:
            raise ApiError(f"{verb} {path}: the answer broke off ({_short(error)})") from error
        finally:
            _put_back(answer)


def _path(collection: str, namespace: str) -> str:
    return collection.format(namespace=namespace)


def _lines(answer: Any, *, unfinished: bool = False) -> Iterator[bytes]:
    """Lines as they come; a last one that has no end only where that is wanted."""
    rest = b""
    for chunk in answer.response.stream(1 << 16):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines
    if rest and unfinished:
        yield rest


def _body(answer: Any) -> Document:
    try:
        document = json.loads(answer.read() or b"{}")
    except (ValueError, urllib3.exceptions.HTTPError):
        document = {}
    return document if isinstance(document, dict) else {}


def _put_back(answer: Any) -> None:
    """A connection with nothing left on it serves the next request; any other is closed."""
    response = answer.response
    if response.closed or getattr(response, "_fp", None) is None:
        response.release_conn()
        return
    response.drain_conn() if response.length_remaining == 0 else response.close()
    response.release_conn()


def _refusal(status: int, body: Document, retry_after: str | None = None) -> ApiError:
    reason = str(body.get("reason") or "")
    message = str(body.get("message") or f"status {status}")
    kinds: dict[int, type[ApiError]] = {404: NotFound, 409: Conflict, 410: Gone}
    details = body.get("details")
    if retry_after is None and isinstance(details, dict):  # an error in a watch has no headers
        retry_after = str(details.get("retryAfterSeconds"))
    seconds = float(retry_after) if retry_after is not None and retry_after.isdecimal() else None
    return kinds.get(status, ApiError)(message, status, reason, seconds)


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
