"""Takes secrets out of what is printed, logged or stored as a message.

The second line of defence: our own messages are made without secrets. But the text of a library's
exception, a server's answer or a traceback is not ours, so it passes through here at the edges:
events, stderr, logs of the local runner, the controller's log, status and Events.
"""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple, TextIO, cast
from urllib.parse import quote, unquote

REDACTED = "[redacted]"

SHORTEST = 8
SHORTEST_WORD = 16
"""Characters of a known value that is taken out: replacing shorter ones, or short plain words such
as `quickstart`, would make other text unreadable."""

_SECRET_NAME = re.compile(
    r"SECRET|PASSWORD|PASSWD|CREDENTIAL|ACCESS_?KEY|API_?KEY|PRIVATE_?KEY|(?:^|_)TOKEN(?:$|_)",
    re.IGNORECASE,
)
# They say where a secret is, not what it is.
_PLACE_NAME = re.compile(r"(_FILE|_PATH|_DIR|_URI|_URL|_NAME|_ARN|_PROVIDER)S?$", re.IGNORECASE)
_WORD = re.compile(r"^[a-z-]+$")


class _Pattern(NamedTuple):
    """What looks like a secret, but for the first group of it, which stays."""

    signs: tuple[str, ...]
    """Without one of these (in lower case) the expression finds nothing: most text has none."""
    expression: re.Pattern[str]


def _pattern(signs: str, expression: str, flags: int = 0) -> _Pattern:
    return _Pattern(tuple(signs.split()), re.compile(expression, flags))


_PATTERNS = (
    # Access keys of AWS: an identifier, and half of what somebody needs.
    _pattern("akia asia", r"()\b(?:AKIA|ASIA)[A-Z0-9]{16}\b", re.ASCII),
    # JSON Web Tokens: service accounts, web identities.
    _pattern("eyj", r"()\beyJ[\w-]{8,8192}\.[\w-]{8,8192}\.[\w-]*", re.ASCII),
    _pattern(
        "-----begin",
        r"()-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----.*?(?:-----END [A-Z ]{0,40}-----|\Z)",
        re.DOTALL,
    ),
    # user:password@ of any URL, also with slashes in it, and a token alone before the @.
    _pattern(
        "://",
        r"(\b[A-Za-z][A-Za-z0-9+.-]{0,20}://)(?:[^\s/]+(?=@)|[^\s/@:]*:[^\s@]{1,512}(?=@))",
        re.ASCII,
    ),
    # The parts of a signed URL that let its holder in (AWS, its older form, Google, Azure).
    _pattern(
        "x-amz- awsaccesskeyid signature sig= x-goog-",
        r"""([?&;\s"'](?:X-Amz-(?:Signature|Credential|Security-Token)|AWSAccessKeyId|Signature"""
        r"""|X-Goog-(?:Signature|Credential)|sig)=)[^&\s"'<>,;]+""",
        re.IGNORECASE,
    ),
    # Headers, as text, in a dict or in a list of pairs.
    _pattern(
        "authorization",
        r"""\b((?:proxy-)?authorization(?:["']?\s?[:=]|["']\s?,)\s?b?["']?)[^"'\r\n]+""",
        re.IGNORECASE,
    ),
    _pattern(
        "x-amz-security-token",
        r"""\b(x-amz-security-token(?:["']?\s?[:=]|["']\s?,)\s?b?["']?)[^\s"',;&]+""",
        re.IGNORECASE,
    ),
    _pattern("bearer", r"\b(bearer\s+)[\w.~+/=-]{12,}", re.IGNORECASE | re.ASCII),
    # As in configuration files, kubeconfigs and answers of token services.
    _pattern(
        "key token passw",
        r"""\b((?:aws_)?(?:secret_?access_?key|session_?token|access_?token|id_?token"""
        r"""|refresh_?token|client-key-data|password|passwd)["']?\s?[:=]\s?["']?)"""
        r"""(?!\[redacted)[^\s"',;&}]{4,}""",
        re.IGNORECASE,
    ),
)

_remembered: set[str] = set()


def remember(*secrets: str) -> None:
    """Values to take out of text from now on, beside those in the environment: what was read from
    the files of a mounted Secret."""
    _remembered.update(secrets)


def redact(text: str, environ: Mapping[str, str] = os.environ) -> str:
    """`text` without the secrets this process was given and without what looks like one."""
    for secret in _known(environ):
        if secret in text:
            text = text.replace(secret, REDACTED)
    lowered = text.lower()
    for signs, expression in _PATTERNS:
        if any(sign in lowered for sign in signs):
            text = expression.sub(rf"\g<1>{REDACTED}", text)
    return text


def is_secret(name: str, value: str) -> bool:
    """Whether a variable of this name and value holds something that is not to be seen."""
    return _names_secret(name) or redact(value, {}) != value


def redact_values(value: Any, environ: Mapping[str, str] = os.environ) -> Any:
    """A document (mappings, lists, plain values) with every string in it redacted, keys left."""
    if isinstance(value, str):
        return redact(value, environ)
    if isinstance(value, Mapping):
        return {key: redact_values(one, environ) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [redact_values(one, environ) for one in value]
    return value


def _known(environ: Mapping[str, str]) -> list[str]:
    """Secrets as they are and as a URL would carry them, the longest first: one may hold others."""
    found = set(_remembered)
    for name, value in environ.items():
        if "://" in value:
            found.update(_url_passwords(value))
        elif _names_secret(name):
            found.add(value.strip())
    found |= {quote(secret, safe="") for secret in found}
    return sorted(filter(_is_telling, found), key=len, reverse=True)


@lru_cache(4096)
def _names_secret(variable: str) -> bool:
    return bool(_SECRET_NAME.search(variable)) and not _PLACE_NAME.search(variable)


def _is_telling(secret: str) -> bool:
    return len(secret) >= (SHORTEST_WORD if _WORD.match(secret) else SHORTEST)


def _url_passwords(url: str) -> Iterator[str]:
    # By hand: a password with a / or # in it makes no URL, but is a secret all the same.
    user, at, _ = url.partition("://")[2].rpartition("@")
    if at:
        password = user.partition(":")[2] or user
        yield password
        yield unquote(password)


class RedactedStream:
    """A text stream that redacts whole lines; what is flushed goes out at once, redacted."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._rest = ""
        self._lock = threading.RLock()

    def write(self, text: str) -> int:
        with self._lock:
            # The interpreter writes a traceback in pieces: a secret may lie across two of them.
            lines, newline, self._rest = (self._rest + text).rpartition("\n")
            if newline:
                self._stream.write(redact(lines) + newline)
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        with self._lock:
            rest, self._rest = self._rest, ""
            if rest:
                self._stream.write(redact(rest))
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def guard_streams() -> None:
    """From now on, what this process prints to stdout and stderr is redacted: tracebacks, warnings
    and logs of libraries among it."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, RedactedStream):
            setattr(sys, name, cast(TextIO, RedactedStream(stream)))
