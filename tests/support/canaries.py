"""Secrets that exist nowhere else, and looking for them in everything that was written."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import quote

KEY_ID = "AKIAZZCANARYZZCANARY"
SECRET = "cAnArY/Secret+Key0123456789abcdefghijklm"
SESSION_TOKEN = "IQoJcanary+SessionToken/Qwertz0123456789=="
PROXY_PASSWORD = "canary-proxy/pw!1"
ENDPOINT_PASSWORD = "canary-endpoint-pw2"
WEB_TOKEN = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJjYW5hcnktd2ViIn0.Y2FuYXJ5LXdlYi1zaWduYXR1cmU"
BEARER = "canary-bearer-0123456789abcdef"

ALL = (KEY_ID, SECRET, SESSION_TOKEN, PROXY_PASSWORD, ENDPOINT_PASSWORD, WEB_TOKEN, BEARER)

PROXY = f"http://alice:{quote(PROXY_PASSWORD, safe='')}@127.0.0.1:1"


def leaks(written: Mapping[str, bytes], canaries: Iterable[str] = ALL) -> list[str]:
    """Where a canary is in what was written (by name), as it is or encoded."""
    found = []
    for canary in canaries:
        forms = {canary, quote(canary, safe=""), quote(canary), canary.replace("/", "\\/")}
        needles = {form.encode() for form in forms}
        # In base64 the same bytes look different at each of three offsets.
        needles |= {base64.b64encode(b"x" * n + canary.encode())[4:-4] for n in range(3)}
        for name, data in written.items():
            found += [
                f"{canary} in {name}" for one in needles if one in data or one in name.encode()
            ]
    return found


def files_below(folder: Path) -> dict[str, bytes]:
    """Content of every file, by its path."""
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
