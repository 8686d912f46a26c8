"""What errors of S3 mean: whether to try again, whether new credentials may help, and what to tell
a person. Messages carry error codes, never what a server or library printed around them, so that
no secret can slip through.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

from botocore import exceptions as boto_errors
from botocore.parsers import ResponseParserError

from hdgan.core.errors import KeyMissing, NoSpace, StoreError, StoreUnavailable


class BrokenAnswer(Exception):
    """An answer that is cut off, too long, or not what S3 says; the message says which."""


ERRORS: Final = (
    boto_errors.BotoCoreError,
    boto_errors.ClientError,
    ResponseParserError,
    BrokenAnswer,
)
"""All that a request may fail with."""

MISSING: Final = frozenset({"NoSuchKey", "404", "NotFound"})
EXISTS: Final = frozenset({"PreconditionFailed", "412"})
UNKNOWN_OPERATION: Final = frozenset({"NotImplemented", "501", "MethodNotAllowed", "405"})
WITHOUT_REASON: Final = frozenset({"301", "307", "400", "403"})
"""What is left of a refusal when the request was a HEAD, whose answer has no body."""

_EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"})
_BAD_CREDENTIALS = frozenset(
    {"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "InvalidSecurity"}
)
_DENIED = frozenset({"AccessDenied", "403", "Forbidden", "AllAccessDisabled"})
_BUSY = frozenset(
    {
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "RequestLimitExceeded",
        "TooManyRequests",
        "TooManyRequestsException",
        "InternalError",
        "ServiceUnavailable",
        "RequestTimeout",
        "RequestTimeoutException",
        "XMinioServerNotInitialized",
        # Another write of the same object is under way right now.
        "ConditionalRequestConflict",
        "OperationAborted",
        "409",
    }
)
# What was sent arrived as something else.
_DAMAGED = frozenset({"BadDigest", "IncompleteBody", "XAmzContentSHA256Mismatch"})
_FULL = frozenset(
    {"507", "InsufficientStorage", "QuotaExceeded", "XMinioStorageFull", "EntityQuotaExceeded"}
)
_NEVER_LATER = frozenset({501, 505, 507})
_WRONG_REGION = frozenset(
    {
        "PermanentRedirect",
        "TemporaryRedirect",
        "AuthorizationHeaderMalformed",
        "IllegalLocationConstraintException",
        "301",
        "307",
    }
)
_REGION = re.compile(r"^[a-z0-9-]{1,40}$")


@dataclass(frozen=True)
class Where:
    """What was asked, for messages."""

    action: str
    bucket: str
    name: str
    endpoint: str
    region: str

    @property
    def what(self) -> str:
        return f"cannot {self.action} s3://{self.bucket}/{self.name}"


def taken(answer: Mapping[str, Any], field: str) -> Any:
    """A field that every such answer of S3 has; BrokenAnswer if this one has not."""
    try:
        return answer[field]
    except KeyError:
        raise BrokenAnswer(f"an answer without {field}, which S3 would give") from None


def code_of(error: boto_errors.ClientError) -> str:
    """The error code of an answer, or its HTTP status where it has none."""
    code = str(error.response.get("Error", {}).get("Code", ""))
    # It comes from outside and goes into messages.
    return code if re.fullmatch(r"[A-Za-z0-9._-]{1,80}", code) else "an unnamed error"


def transient(error: Exception) -> bool:
    """Whether the same request may succeed a moment later."""
    if isinstance(error, boto_errors.ClientError):
        code, status = code_of(error), _status(error)
        if code in _FULL or status in _NEVER_LATER:
            return False
        return code in _BUSY or code in _DAMAGED or status in (408, 429) or status >= 500
    if isinstance(error, boto_errors.SSLError):
        return "CERTIFICATE_VERIFY_FAILED" not in str(error)
    return isinstance(
        error,
        boto_errors.HTTPClientError
        | boto_errors.ConnectionError
        | boto_errors.IncompleteReadError
        | ResponseParserError
        | BrokenAnswer,
    )


def refuses_credentials(error: Exception) -> bool:
    """Whether other credentials may be accepted: these have expired, or were replaced."""
    if not isinstance(error, boto_errors.ClientError):
        return False
    return code_of(error) in _EXPIRED | _BAD_CREDENTIALS


def explain(error: Exception, where: Where) -> StoreError:
    """What to tell a person, as the exception that says whether trying later may help."""
    what, at = where.what, f"at {where.endpoint}"
    if isinstance(error, boto_errors.ClientError):
        return _explain_answer(error, where)
    if isinstance(error, boto_errors.NoCredentialsError | boto_errors.PartialCredentialsError):
        return StoreError(
            f"{what}: no complete credentials found; set AWS_ACCESS_KEY_ID and"
            " AWS_SECRET_ACCESS_KEY, a profile (AWS_PROFILE) or a role"
        )
    if isinstance(error, boto_errors.ProfileNotFound):
        return StoreError(f"{what}: the profile in AWS_PROFILE does not exist; correct it")
    if isinstance(error, boto_errors.SSLError) and not transient(error):
        return StoreError(
            f"{what}: the certificate of the server {at} is not trusted; name the file of its"
            " authority in AWS_CA_BUNDLE, or correct AWS_ENDPOINT_URL"
        )
    if isinstance(error, BrokenAnswer):
        return StoreUnavailable(
            f"{what}: {error} {at}; check AWS_ENDPOINT_URL and what is between here and there"
        )
    if transient(error):
        return StoreUnavailable(
            f"{what}: no usable answer {at} ({type(error).__name__}); check"
            " AWS_ENDPOINT_URL, the network and that the server runs"
        )
    return StoreError(f"{what}: {type(error).__name__} {at}; check the AWS_* settings")


def _explain_answer(error: boto_errors.ClientError, where: Where) -> StoreError:
    code, what, at = code_of(error), where.what, f"at {where.endpoint}"
    if str(error.operation_name).startswith("AssumeRole"):
        kind = StoreUnavailable if transient(error) or code in _EXPIRED else StoreError
        return kind(
            f"{what}: no credentials for the role ({code}); check AWS_ROLE_ARN, the token in"
            " AWS_WEB_IDENTITY_TOKEN_FILE and AWS_ENDPOINT_URL_STS"
        )
    if code in MISSING:
        return KeyMissing(f"{what}: there is no such object {at}")
    if code == "NoSuchBucket":
        return StoreError(
            f"{what}: bucket {where.bucket!r} does not exist {at}; create it, or correct"
            " the store's URI or AWS_ENDPOINT_URL"
        )
    if code in _WRONG_REGION:
        return _wrong_region(error, where)
    if code in _BAD_CREDENTIALS:
        return StoreError(
            f"{what}: the credentials are refused {at} ({code}); check AWS_ACCESS_KEY_ID,"
            " AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN"
        )
    if code in _EXPIRED:
        return StoreUnavailable(
            f"{what}: the credentials have expired {at} ({code}); renew AWS_ACCESS_KEY_ID,"
            " AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN together"
        )
    if code == "RequestTimeTooSkewed":
        return StoreUnavailable(
            f"{what}: the clock of this machine is wrong{_skew(error)} {at} ({code}); set it,"
            " for example by NTP"
        )
    if code in _DENIED:
        return StoreError(
            f"{what}: access denied {at}; these credentials need s3:GetObject, s3:PutObject,"
            " s3:DeleteObject, s3:AbortMultipartUpload and s3:ListBucket there"
        )
    if code in _FULL:
        return NoSpace(f"{what}: no space left {at} ({code}); free some or raise the quota")
    if code in UNKNOWN_OPERATION:
        return StoreError(f"{what}: the server does not know how to do this {at} ({code})")
    kind = StoreUnavailable if transient(error) else StoreError
    return kind(f"{what}: the server answered {code} {at}; try again, see its log")


def _wrong_region(error: boto_errors.ClientError, where: Where) -> StoreError:
    told = error.response.get("Error", {}).get("Region") or _headers(error).get(
        "x-amz-bucket-region"
    )
    right = str(told) if told and _REGION.match(str(told)) else None
    if right is None:
        advice = "set AWS_REGION to the bucket's region, or correct AWS_ENDPOINT_URL"
        return StoreError(
            f"{_asked_in(where)}: it is not the bucket's ({code_of(error)}); {advice}"
        )
    return StoreError(
        f"{_asked_in(where)}: the bucket is in {right} ({code_of(error)}); set AWS_REGION={right}"
    )


def _asked_in(where: Where) -> str:
    """The beginning of a message about a wrong region."""
    return f"{where.what}: it was asked for in region {where.region} at {where.endpoint}"


def _skew(error: boto_errors.ClientError) -> str:
    """By how much, if the answer says what time it is there."""
    try:
        there = parsedate_to_datetime(str(_headers(error)["date"]))
        seconds = (_now() - there).total_seconds()
    except (KeyError, TypeError, ValueError):
        return ""
    if abs(seconds) < 2:
        return ""
    return f": {abs(seconds):.0f} seconds {'ahead of' if seconds > 0 else 'behind'} the one"


def _now() -> datetime:
    return datetime.now(UTC)


def _status(error: boto_errors.ClientError) -> int:
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return status if isinstance(status, int) else 0


def _headers(error: boto_errors.ClientError) -> Mapping[str, Any]:
    found: Mapping[str, Any] = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    return found
