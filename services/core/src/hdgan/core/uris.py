"""Addresses of stores, slides and tables as people write them, taken apart."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from hdgan.core.errors import StoreError

_ONE_SLASH = re.compile(r"^(?:s3|file|https?):", re.IGNORECASE)
# A secret may have slashes, and then is not in what URIs call the authority.
_CREDENTIALS = re.compile(r"^(?:[^/@]*@|[^/@]*:[^@]*@)")


def is_path(text: str) -> bool:
    """Whether it is a plain path, not an address. StoreError if it is half an address."""
    if "://" in text:
        return False
    if _ONE_SLASH.match(text):
        # Not repeated whole: there may be a secret in it.
        kind = text.partition(":")[0]
        raise StoreError(f"{kind}: has to be followed by two slashes: {kind}://...")
    return True


def split_uri(uri: str) -> SplitResult:
    """The parts of `file:///path` or `s3://bucket/prefix`. StoreError if it carries credentials,
    which is said without repeating them, or is none."""
    kind, _, rest = uri.partition("://")
    if _CREDENTIALS.match(rest):
        raise StoreError(
            f"the {kind[:20]}:// URI carries credentials: remove them, and set AWS_ACCESS_KEY_ID"
            " and AWS_SECRET_ACCESS_KEY, or a profile, instead"
        )
    try:
        parts = urlsplit(uri)
    except ValueError:
        raise StoreError(
            f"{uri}: is no URI; use file:///path or s3://bucket/prefix, with %5B and %5D for"
            " brackets in a file's path"
        ) from None
    if parts.scheme == "file" and parts.netloc not in ("", "localhost"):
        raise StoreError(f"{uri}: a file URI has three slashes: file:///path")
    return parts


def file_path(parts: SplitResult) -> Path:
    """The path of a file URI."""
    path = unquote(parts.path) or "/"
    if "\0" in path:
        raise StoreError(f"{parts.geturl()}: no path can contain %00")
    return Path(path)
