"""A connection to an S3 server, through boto3: made when it is first used, tried again within a
budget, made anew with the credentials of now when those of then are refused.

Endpoint, region and credentials come from where every AWS tool takes them (`AWS_ENDPOINT_URL`,
`AWS_REGION`, `AWS_PROFILE`, a pod's role ...).
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

import boto3
import botocore.session
from botocore.config import Config
from urllib3.exceptions import HTTPError

from hdgan.core.atomic_file import explain_os_error
from hdgan.core.errors import StoreError
from hdgan.core.redaction import remember
from hdgan.core.retry_budget import RetryBudget
from hdgan.core.s3_errors import ERRORS, BrokenAnswer, refuses_credentials, transient
from hdgan.core.telemetry.store_requests import outcome_of, request_ended, retried

T = TypeVar("T")

Checksums = Literal["when_supported", "when_required"]

CONNECT_SECONDS = 10
READ_SECONDS = 60
"""Longest silence of a server that is connected."""
_BEGAN = "hdgan_began"
"""Where boto3's context of a request notes when that began."""


@dataclass(frozen=True)
class S3Connection:
    """How a server is reached, for programs that know several; what is None is taken from where
    every AWS tool takes it."""

    endpoint: str | None = None
    region: str | None = None
    credentials: Path | None = None
    """Folder with files named AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and perhaps
    AWS_SESSION_TOKEN, as a mounted Secret has them. They are read again when the server refuses
    what they said before."""
    ca_file: Path | None = None
    """Certificate authority of the server."""
    checksums: Checksums | None = None
    """Whether requests carry a CRC and answers are held to one: wherever S3 knows one
    (`when_supported`; over TLS uploads then carry it behind the body), or only where it demands one
    (`when_required`). None: AWS_REQUEST_CHECKSUM_CALCULATION and AWS_RESPONSE_CHECKSUM_VALIDATION,
    or the profile's, or else `when_required`. That is right for Amazon, too: without a CRC the
    SHA-256 of every body is part of the request's signature, which the server checks, and readers
    hold what they get to the SHA-256 of the manifest. And servers that do not know these headers
    fail over them. Buckets with Object Lock demand `when_supported`."""

    def secrets(self) -> dict[str, str]:
        """Arguments of boto3's client; {} where the credentials are not in files."""
        if self.credentials is None:
            return {}
        names = {
            "AWS_ACCESS_KEY_ID": "aws_access_key_id",
            "AWS_SECRET_ACCESS_KEY": "aws_secret_access_key",
            "AWS_SESSION_TOKEN": "aws_session_token",
        }
        found = {}
        for name, argument in names.items():
            place = self.credentials / name
            if place.is_file():
                try:
                    found[argument] = place.read_text(encoding="utf-8").strip()
                except OSError as error:
                    raise explain_os_error(error, "read", place) from error
            elif name != "AWS_SESSION_TOKEN":
                raise StoreError(f"there is no file {place} with the store's credentials")
        remember(*found.values())
        return found


class S3Server:
    """A server as boto3 talks to it. For several threads."""

    def __init__(
        self,
        how: S3Connection,
        budget: RetryBudget | None = None,
        *,
        sleep: Callable[[float], None] | None = None,
    ) -> None:
        """budget: None: the default one, with as many attempts as AWS_MAX_ATTEMPTS or the profile
        says."""
        self._how = how
        self._budget = budget
        self._sleep = sleep
        self._lock = threading.Lock()
        self._client: Any = None
        self._secrets: Any = None

    @property
    def client(self) -> Any:
        """boto3's client for S3."""
        with self._lock:
            if self._client is None:
                self._client, self._secrets = self._connect()
            return self._client

    def close(self) -> None:
        """Close pooled connections; the next request opens them again."""
        with self._lock:
            if self._client is not None:
                self._client.close()
                self._client = None

    @property
    def endpoint(self) -> str:
        """Scheme, host and port that are talked to, without anything secret."""
        if self._client is None:
            return "the configured endpoint"
        try:
            parts = urlsplit(str(self._client.meta.endpoint_url))
            port = f":{parts.port}" if parts.port else ""
        except ValueError:  # there may be a secret in it
            return "an endpoint that is no URL"
        return f"{parts.scheme}://{parts.hostname}{port}"

    @property
    def region(self) -> str:
        """The region requests are signed for."""
        return "none" if self._client is None else str(self._client.meta.region_name)

    def request(
        self,
        attempt: Callable[[Any, int], T],
        cancelled: threading.Event | None = None,
    ) -> T:
        """What `attempt(client, failures)` returns, called until it raises none of `ERRORS` that
        may be gone a moment later, or the budget is spent. It must touch no files.

        failures   how many attempts before failed in a way that may have had an effect
        cancelled  there is no other attempt once it is set
        """
        began, failures, renewed = time.monotonic(), 0, False
        while True:
            client = self.client
            try:
                return _speaking(attempt, client, failures)
            except ERRORS as error:
                if not renewed and refuses_credentials(error) and self._renew(client):
                    renewed = True
                    continue
                failures += 1
                pause = None
                if transient(error) and not (cancelled and cancelled.is_set()):
                    elapsed = time.monotonic() - began
                    pause = self._patience().pause(failures, elapsed, random.random())
                if pause is None:
                    raise
            (self._sleep or time.sleep)(pause)
            retried()

    def _patience(self) -> RetryBudget:
        if self._budget is None:
            try:
                attempts = _session().get_config_variable("max_attempts")
            except ValueError:
                raise StoreError("AWS_MAX_ATTEMPTS (or the profile's) is not a number") from None
            budget = RetryBudget()
            self._budget = replace(budget, attempts=max(1, attempts)) if attempts else budget
        return self._budget

    def _renew(self, refused: Any) -> bool:
        """Whether there are other credentials than those `refused` has, by now."""
        with self._lock:
            if self._client is not refused:
                return True  # another thread has found them
            client, secrets = self._connect()
            if secrets == self._secrets:
                client.close()
                return False
            refused.close()
            self._client, self._secrets = client, secrets
            return True

    def _connect(self) -> tuple[Any, Any]:
        session = _session()
        profile = session.get_scoped_config()
        endpoint = self._how.endpoint or _endpoint(session.full_config, profile)
        addressing = _section(profile, "s3").get("addressing_style")
        config = Config(
            connect_timeout=CONNECT_SECONDS,
            read_timeout=READ_SECONDS,
            # Once: who asks here asks again himself, bodies that break off included.
            retries={"mode": "standard", "total_max_attempts": 1},
            max_pool_connections=32,
            # Servers other than Amazon's seldom have a DNS name per bucket.
            s3={"addressing_style": addressing or ("path" if endpoint else "auto")},
            **self._checksums(profile),
        )
        region = self._how.region or os.environ.get("AWS_REGION")
        region = region or session.get_config_variable("region") or "us-east-1"
        session.set_config_variable("region", region)  # for whoever gives out the credentials
        try:
            client = boto3.session.Session(botocore_session=session).client(
                "s3",
                config=config,
                region_name=region,
                endpoint_url=self._how.endpoint,
                verify=None if self._how.ca_file is None else str(self._how.ca_file),
                **self._how.secrets(),
            )
        except ValueError as error:  # its text may hold what was meant to be secret
            raise StoreError(
                "the endpoint of the S3 store (AWS_ENDPOINT_URL) is not a URL such as"
                " https://host:port"
            ) from error
        _watch(client)
        # The session's own are what the client has if it was given none.
        given = self._how.secrets() or session.get_credentials()
        return client, given if isinstance(given, dict | None) else given.get_frozen_credentials()

    def _checksums(self, profile: Mapping[str, Any]) -> dict[str, str]:
        names = ("request_checksum_calculation", "response_checksum_validation")
        if self._how.checksums is not None:
            return dict.fromkeys(names, self._how.checksums)
        # What boto3 takes from there is not to be replaced.
        told = [name for name in names if f"AWS_{name.upper()}" in os.environ or name in profile]
        return {name: "when_required" for name in names if name not in told}


def _watch(client: Any) -> None:
    """Tell of each of its requests: by when the headers of the answer are there."""
    events = client.meta.events
    events.register("before-call.s3", _begins)
    events.register("after-call.s3", _answered)
    events.register("after-call-error.s3", _unanswered)


def _begins(context: dict[str, Any], **_: Any) -> None:
    context[_BEGAN] = time.perf_counter()


def _answered(model: Any, http_response: Any, context: dict[str, Any], **_: Any) -> None:
    seconds = time.perf_counter() - context.get(_BEGAN, time.perf_counter())
    request_ended(model.name, outcome_of(http_response.status_code), seconds)


def _unanswered(event_name: str, context: dict[str, Any], **_: Any) -> None:
    seconds = time.perf_counter() - context.get(_BEGAN, time.perf_counter())
    request_ended(event_name.rpartition(".")[2], "unanswered", seconds)


def _speaking(attempt: Callable[[Any, int], T], client: Any, failures: int) -> T:
    """What breaks below boto3 must not be taken for an error of the disk."""
    try:
        return attempt(client, failures)
    except ERRORS:  # some of boto3's are OSErrors
        raise
    except (OSError, HTTPError) as error:
        raise BrokenAnswer(f"a connection that broke ({type(error).__name__})") from error
    except ValueError as error:  # botocore: of a number or time that is none
        raise BrokenAnswer("an answer with a field that is not what S3 would give") from error


def _session() -> botocore.session.Session:
    return botocore.session.Session()


def _section(profile: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = profile.get(name)
    return found if isinstance(found, Mapping) else {}


def _endpoint(config: Mapping[str, Any], profile: Mapping[str, Any]) -> str | None:
    """The endpoint that boto3 will take from variables or the profile, if any."""
    services = _section(_section(config, "services"), str(profile.get("services")))
    found = (
        os.environ.get("AWS_ENDPOINT_URL_S3")
        or os.environ.get("AWS_ENDPOINT_URL")
        or _section(services, "s3").get("endpoint_url")
        or profile.get("endpoint_url")
    )
    return None if found is None else str(found)
