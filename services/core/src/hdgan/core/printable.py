"""Text from outside (names of slides, messages of other programs) as it may go to a terminal."""

from __future__ import annotations

import re

# Control characters but newline and tab, and those that turn the direction of what follows.
_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]"
)


def printable(text: str) -> str:
    r"""`text` with every control character shown as `\x1b`: nothing in it moves the cursor, changes
    a title, or hides a line. Newlines and tabs stay."""
    return _CONTROL.sub(lambda found: _escaped(ord(found[0])), text)


def _escaped(code: int) -> str:
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
