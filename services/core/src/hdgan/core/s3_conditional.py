"""Whether an S3 server creates objects conditionally, found out by trying: several know
`If-None-Match: *` and ignore it, refuse only other content, or say yes and write nothing."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any, Final, Literal

from botocore import exceptions as boto_errors

from hdgan.core.s3_connection import S3Server
from hdgan.core.s3_errors import ERRORS, EXISTS, MISSING, UNKNOWN_OPERATION, code_of

Answer = Literal["written", "refused", "unknown"]
"""To a conditional write: yes, there is one already, or the server does not know the condition."""

# Some do not refuse what they do not know, but find it malformed.
_UNKNOWN: Final = UNKNOWN_OPERATION | {"InvalidArgument", "InvalidRequest", "400"}
FIRST: Final = b"first"
OTHER: Final = b"other"


@dataclass(frozen=True)
class Trial:
    """A conditional write, and what could be read afterwards (None: no object)."""

    answer: Answer
    found: bytes | None


def honours_condition(absent: Trial, equal: Trial, different: Trial) -> bool:
    """Whether conditional creates can be relied on.

    absent     a write of FIRST where there was nothing
    equal      then another one of FIRST
    different  then one of OTHER
    """
    return (
        # Refused and written all the same: the network delivered it twice.
        absent in (Trial("written", FIRST), Trial("refused", FIRST))
        and equal == Trial("refused", FIRST)
        and different == Trial("refused", FIRST)
    )


def try_condition(server: S3Server, bucket: str, name: str) -> bool:
    """Try it on the object `name`, which must be nobody's and is gone in the end. Raises ERRORS."""
    try:
        trials: list[Trial] = []
        for data in (FIRST, FIRST, OTHER):
            answer = _create(server, bucket, name, data)
            trials.append(Trial(answer, _read(server, bucket, name)))
            if trials[-1].answer == "unknown":
                break
        return len(trials) == 3 and honours_condition(*trials)
    finally:
        # Whatever happened: an object that stays is found by `unfinished`.
        with contextlib.suppress(*ERRORS):
            server.request(lambda client, _: client.delete_object(Bucket=bucket, Key=name))


def _create(server: S3Server, bucket: str, name: str, data: bytes) -> Answer:
    def attempt(client: Any, _: int) -> Answer:
        try:
            client.put_object(Bucket=bucket, Key=name, Body=data, IfNoneMatch="*")
        except boto_errors.ClientError as error:
            code = code_of(error)
            if code in EXISTS:
                return "refused"
            if code in _UNKNOWN:
                return "unknown"
            raise
        return "written"

    return server.request(attempt)


def _read(server: S3Server, bucket: str, name: str) -> bytes | None:
    def attempt(client: Any, _: int) -> bytes | None:
        try:
            answer = client.get_object(Bucket=bucket, Key=name)
        except boto_errors.ClientError as error:
            if code_of(error) in MISSING:
                return None
            raise
        with contextlib.closing(answer["Body"]) as body:
            return bytes(body.read(len(FIRST) + 1))

    return server.request(attempt)
