"""Where the report of a run lies in the store, and how one tells what it shows.

`reports/<run>/report.html` is of the run as it came to rest last; each write replaces it whole.
`reports/<run>/<release>.html` is of the run when that release was made, and is written once: a
later run of the same name leaves the report of a release that is in use alone. Neither is an
artifact and nothing depends on them; releases do not name them, so that a release is what it is
with a report or without.

A report ends with a mark that says what it shows. The mark is in the report itself, because of two
objects that belong together one could be replaced without the other.
"""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from hdgan.core.bounded_reading import TooLarge, read_object
from hdgan.core.errors import KeyMissing
from hdgan.core.store import Store

PREFIX: Final = "reports/"
MAX_BYTES: Final = 64 << 20
"""Longest report that is looked at; those that are written are far shorter."""
_MARK: Final = "<!-- hdgan report {} by {} -->"
_PLACE: Final = re.compile(r"^reports/([a-z0-9-]{1,63})/([a-z0-9-]{1,80})\.html$")
_CURRENT: Final = "report"


def report_place(run: str) -> str:
    """Where the report of a run lies."""
    return f"{PREFIX}{run}/{_CURRENT}.html"


def release_report_place(run: str, release: str) -> str:
    """Where the report of one of its releases lies. The names of releases are longer than
    `report`: they end with a digest."""
    return f"{PREFIX}{run}/{release}.html"


def report_of(place: str) -> tuple[str, str | None] | None:
    """The run, and the release, that a report is of, by its place; None if that is no report's."""
    match = _PLACE.match(place)
    if match is None:
        return None
    return match[1], None if match[2] == _CURRENT else match[2]


def with_mark(html: str, key: str, made_by: str) -> bytes:
    """A report with the mark of what it shows. made_by: version of the desk."""
    return f"{html.rstrip()}\n{_mark(key, made_by)}\n".encode()


def is_current(store: Store, run: str, key: str, made_by: str) -> bool:
    """Whether the report in the store shows this, by that version of the desk."""
    try:
        report = read_object(store, report_place(run), MAX_BYTES)
    except (KeyMissing, TooLarge):
        return False
    return report.rstrip().endswith(_mark(key, made_by).encode())


def desk_version() -> str:
    """Version of the desk that is installed; `unknown` if nothing says it."""
    try:
        return version("hdgan-desk")
    except PackageNotFoundError:
        return "unknown"


def _mark(key: str, made_by: str) -> str:
    return _MARK.format(key, re.sub(r"[^0-9A-Za-z.+]", "_", made_by))
