"""The one reader of JSON from outside: bounded in bytes, depth and number of values, and strict.

Python's own reader takes NaN, names given twice, halves of surrogate pairs, UTF-16, integers of
thousands of digits and a thousand levels, each of which ends somewhere else as an exception nobody
expects. Whatever comes from a store, a folder, a process or a person is read here.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError

MAX_BYTES: Final = 64 << 20
MAX_DEPTH: Final = 64
"""Levels of lists and objects. Ours have up to ten; what digests and copies them is recursive."""
MAX_VALUES: Final = 5_000_000
"""Values, names among them. Each takes up to 250 bytes of memory, an empty object in three bytes of
text among them: so this, not the size of the text, bounds the memory."""
MAX_DIGITS: Final = 24
"""Digits of an integer: more than 2**64 has, and few enough to be a float."""

_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")
_SURROGATE = re.compile("[\ud800-\udfff]")


class JsonError(ValueError):
    """The text is no JSON that is read here; the message says what is wrong and in which line."""


_Model = TypeVar("_Model", bound=BaseModel)


def parse_json(
    data: bytes | str,
    *,
    max_bytes: int = MAX_BYTES,
    max_values: int = MAX_VALUES,
    nan: bool = False,
) -> Any:
    """The value of a JSON text in UTF-8 (with or without byte order mark).

    Args:
        max_bytes: most bytes (characters of a str) that are read.
        max_values: most values and names.
        nan: take NaN and Infinity, which our own logs of a training that diverged have.

    Raises JsonError, a ValueError, for everything else: also for names that are given twice, for
    more than 64 levels, for integers of more than 24 digits, for numbers that are no finite float
    and for text that is no Unicode.
    """
    if len(data) > max_bytes:
        raise JsonError(f"it has {len(data)} bytes, at most {max_bytes} are read")
    text = _decoded(data) if isinstance(data, bytes) else data
    # An upper bound, as texts may hold these characters too.
    values = 1 + sum(text.count(mark) for mark in ",:[{")
    if values > max_values:
        raise JsonError(f"it has up to {values} values, at most {max_values} are read")
    try:
        found = json.loads(
            text,
            object_pairs_hook=_once,
            parse_int=_integer,
            parse_float=None if nan else _finite,
            parse_constant=None if nan else _refuse_constant,
        )
    except RecursionError:
        raise _too_deep() from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise JsonError(f"{where}: {error.msg}") from None
    _check(found, texts=_SURROGATE_ESCAPE.search(text) is not None)
    return found


def parse_object(
    data: bytes | str,
    *,
    max_bytes: int = MAX_BYTES,
    max_values: int = MAX_VALUES,
    nan: bool = False,
) -> dict[str, Any]:
    """Like `parse_json`, of a text that has to hold an object."""
    found = parse_json(data, max_bytes=max_bytes, max_values=max_values, nan=nan)
    if not isinstance(found, dict):
        raise JsonError(f"it holds {_kind(found)}, not an object")
    return found


def parse_model(
    model: type[_Model],
    data: bytes | str,
    *,
    max_bytes: int = MAX_BYTES,
    max_values: int = MAX_VALUES,
) -> _Model:
    """A document as its pydantic model, by the rules of `parse_json` and of the model's JSON mode.

    Raises JsonError, or pydantic's ValidationError; both are ValueErrors.
    """
    parse_json(data, max_bytes=max_bytes, max_values=max_values)
    # Pydantic knows no byte order mark.
    without = data.removeprefix(b"\xef\xbb\xbf") if isinstance(data, bytes) else data
    return model.model_validate_json(without)


def reason(error: Exception) -> str:
    """Why a document was refused, in one line without the document's own values."""
    if isinstance(error, ValidationError):
        first, *more = error.errors(include_url=False, include_input=False, include_context=False)
        where = ".".join(str(part)[:80] for part in first["loc"][:10]) or "document"
        rest = f" (and {len(more)} more)" if more else ""
        return f"{where}: {first['msg'].splitlines()[0][:200]}{rest}"
    if isinstance(error, KeyError) and error.args:
        return f"it has no {str(error.args[0])[:80]!r}"
    return next(iter(str(error).splitlines()), "")[:300] or type(error).__name__


def _decoded(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise JsonError(f"it is not UTF-8 text (byte {error.start})") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise JsonError(f"{name[:80]!r} is given twice")
            seen.add(name)
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise JsonError(f"{name} is not a number JSON knows")


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS + 1:  # one for the sign
        raise JsonError(f"it has a number of {len(digits)} digits, at most {MAX_DIGITS} are read")
    return int(digits)


def _finite(text: str) -> float:
    value = float(text)
    if value - value != 0.0:  # infinite; quicker than math.isfinite, which counts in long lists
        raise JsonError(f"the number {text[:40]} is too large")
    return value


def _check(found: Any, *, texts: bool) -> None:
    """JsonError if the value has too many levels, or a text of it half a surrogate pair."""
    if texts and isinstance(found, str):
        _check_text(found)
    level = [found] if isinstance(found, (dict, list)) else []
    for _ in range(MAX_DEPTH):
        if not level:
            return
        if texts:
            for one in level:
                for inner in (*one, *one.values()) if isinstance(one, dict) else one:
                    if isinstance(inner, str):
                        _check_text(inner)
        level = [
            inner
            for one in level
            for inner in (one.values() if isinstance(one, dict) else one)
            if isinstance(inner, (dict, list))
        ]
    if level:
        raise _too_deep()


def _check_text(text: str) -> None:
    if _SURROGATE.search(text):
        raise JsonError(f"the text {text[:40]!a} has half a surrogate pair")


def _too_deep() -> JsonError:
    return JsonError(f"it is nested too deeply: at most {MAX_DEPTH} levels are read")


def _kind(value: Any) -> str:
    kinds: dict[type, str] = {list: "a list", str: "a text", type(None): "null", bool: "a boolean"}
    return kinds.get(type(value), "a number")
