"""What a run is told about its slides beside their pixels: the table `slides.metadata` and files
in `slides.outlines`, as they were when the run started.

They travel through the store, at `work/slide-facts/<digest>.json`; requests carry only that key.
"""

from __future__ import annotations

import csv
import io
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePosixPath

from pydantic import BaseModel, ConfigDict, Field

from hdgan.core.bounded_reading import TooLarge, read_file, read_object
from hdgan.core.canonical import canonical_digest, canonical_json
from hdgan.core.errors import InputMissing, KeyMissing, RequestError
from hdgan.core.json_documents import parse_model, reason
from hdgan.core.slides import SlideSnapshot, local_path, local_version
from hdgan.core.store import Store, open_store

MAX_TABLE_BYTES = 16 << 20
MAX_ROWS = 1_000_000
MAX_COLUMNS = 1000
MAX_FACTS_BYTES = 256 << 20
MAX_CELL = 200
TEXTS = ("case", "stain", "centre", "diagnosis")
NUMBERS = ("mpp", "mppx", "mppy")
OUTLINES_SUFFIX = ".geojson"


class SlideFacts(BaseModel):
    """A slide's row of the table; what it does not say is None."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    case: str | None = None
    stain: str | None = None
    centre: str | None = None
    diagnosis: str | None = None
    mpp: tuple[float, float] | None = None
    """Micrometres per level-0 pixel (x, y); holds instead of what the slide says."""


class OutlinesFile(BaseModel):
    """A slide's outlines as they were when the run started."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    uri: str
    size: int = Field(ge=0)
    version: str


class AllFacts(BaseModel):
    """Facts and outlines by name of slide."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    facts: dict[str, SlideFacts] = {}
    outlines: dict[str, OutlinesFile] = {}
    unused: int = 0
    """Rows of the table that name no slide of the run."""

    @property
    def digest(self) -> str | None:
        """Identity; None if nothing is said about any slide. Local folders may move."""
        facts = {name: one.model_dump(exclude_none=True) for name, one in self.facts.items()}
        outlines = {name: outlines_identity(one) for name, one in self.outlines.items()}
        if not any(facts.values()) and not outlines:
            return None
        return canonical_digest([facts, outlines])

    @property
    def key(self) -> str | None:
        """Where the store keeps them; None if there is nothing to keep."""
        return None if self.digest is None else f"work/slide-facts/{self.digest}.json"


def outlines_identity(file: OutlinesFile) -> list[str | int]:
    """What tells a file of outlines from others and from itself when it is changed."""
    place = [file.uri] if "://" in file.uri else []
    return [*place, file.size, file.version]


def find_facts(snapshot: SlideSnapshot, metadata: str | None, outlines: str | None) -> AllFacts:
    """Read the table and look for outlines. `outlines`: None where nothing needs them.

    RequestError where the table is wrong, with its line, or a place does not exist.
    """
    names = [slide.name for slide in snapshot.slides]
    facts: dict[str, SlideFacts] = {}
    unused = 0
    if metadata is not None:
        facts, unused = parse_table(_read_table(metadata), names, f"slides.metadata {metadata}")
    found = {} if outlines is None else _find_outlines(outlines, names)
    return AllFacts(facts=facts, outlines=found, unused=unused)


def save_facts(store: Store, facts: AllFacts) -> str | None:
    """Put them where requests can name them; returns the key, None if there is nothing to say."""
    if facts.key is not None:
        store.put(facts.key, canonical_json(facts.model_dump(mode="json")))
    return facts.key


def load_facts(store: Store, key: str) -> AllFacts:
    """What `save_facts` put at `key`."""
    try:
        data = read_object(store, key, MAX_FACTS_BYTES)
        facts = parse_model(AllFacts, data, max_bytes=MAX_FACTS_BYTES)
        if facts.key != key:
            raise ValueError("it was changed: its digest is not the one in its name")
        return facts
    except KeyMissing:
        raise InputMissing(f"{store.url(key)} is gone: start the run again") from None
    except ValueError as error:
        raise InputMissing(
            f"{store.url(key)} says nothing about slides ({reason(error)}): delete it and start "
            "the run again"
        ) from error


def parse_table(data: bytes, names: Iterable[str], where: str) -> tuple[dict[str, SlideFacts], int]:
    """Facts by name of slide, and how many rows name none of them.

    Args:
        data: CSV in UTF-8, with commas, semicolons or tabs between columns.
        names: of the run's slides, as paths below their folder.
        where: names the table in errors.

    Raises RequestError with the line for what is wrong or ambiguous.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RequestError(
            f"{where}: is not UTF-8 ({error.reason} at byte {error.start})"
        ) from None
    rows = _rows(text, where)
    columns = [name.strip().casefold() for name in next(rows, [])]
    _check_columns(columns, where)
    slides_named = _by_spelling(names)
    facts: dict[str, SlideFacts] = {}
    line_of: dict[str, int] = {}
    unused = 0
    for line, cells in enumerate(rows, start=2):
        if line > MAX_ROWS + 1:
            raise RequestError(f"{where}: has more than {MAX_ROWS} rows")
        if not any(cell.strip() for cell in cells):
            continue
        here = f"{where}, line {line}"
        if len(cells) != len(columns):
            raise RequestError(f"{here}: has {len(cells)} cells, the header {len(columns)}")
        row = {
            name: cell.strip() for name, cell in zip(columns, cells, strict=True) if cell.strip()
        }
        if "slide" not in row:
            raise RequestError(f"{here}: names no slide")
        meant = slides_named.get(row["slide"], set())
        if len(meant) > 1:
            raise RequestError(
                f"{here}: {row['slide'][:200]!r} could be {' or '.join(sorted(meant)[:3])}: give "
                "the path"
            )
        if not meant:
            unused += 1
            continue
        (name,) = meant
        if name in facts:
            raise RequestError(f"{here}: {name} was named in line {line_of[name]} already")
        facts[name], line_of[name] = _facts(row, here), line
    return facts, unused


def _rows(text: str, where: str) -> Iterator[list[str]]:
    """The cells of each row, one row at a time. A cell of more than 128 KiB is an error: of a quote
    that is never closed, for one."""
    header = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=header.count)
    try:
        yield from csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    except csv.Error as error:
        raise RequestError(f"{where}: is no CSV ({error})") from None


def _check_columns(columns: list[str], where: str) -> None:
    if len(columns) > MAX_COLUMNS:
        raise RequestError(f"{where}: has {len(columns)} columns, more than {MAX_COLUMNS}")
    if "slide" not in columns:
        shown = [repr(name[:40]) for name in columns[:10]]
        raise RequestError(
            f"{where}: the first line has no column named slide; it has "
            f"{', '.join(shown) or 'nothing'}"
        )
    for name in ("slide", *TEXTS, *NUMBERS):
        if columns.count(name) > 1:
            raise RequestError(f"{where}: has several columns named {name}")


def _by_spelling(names: Iterable[str]) -> Mapping[str, set[str]]:
    """Slides by all that may name them: path, file name, either without ending."""
    result: dict[str, set[str]] = defaultdict(set)
    every = list(names)
    for name in every:
        path = PurePosixPath(name)
        for spelling in (path.name, path.stem, str(path.with_suffix(""))):
            result[spelling].add(name)
    for name in every:
        result[name] = {name}  # a path is never ambiguous
    return result


def _facts(row: Mapping[str, str], here: str) -> SlideFacts:
    for name in TEXTS:
        if len(row.get(name, "")) > MAX_CELL:
            raise RequestError(f"{here}: {name} has more than {MAX_CELL} characters")
    numbers = {name: _mpp(row[name], name, here) for name in NUMBERS if name in row}
    if ("mppx" in numbers) != ("mppy" in numbers):
        raise RequestError(f"{here}: mppX and mppY are given together or not at all")
    mpp = None
    if "mppx" in numbers:
        mpp = (numbers["mppx"], numbers["mppy"])
        if numbers.get("mpp") is not None:
            raise RequestError(f"{here}: give mpp, or mppX and mppY")
    elif "mpp" in numbers:
        mpp = (numbers["mpp"], numbers["mpp"])
    return SlideFacts(mpp=mpp, **{name: row.get(name) for name in TEXTS})


def _mpp(text: str, name: str, here: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= 100:
        raise RequestError(
            f"{here}: {name} is {text[:40]!r}, not a number of micrometres above 0 and up to 100"
        )
    return value


def _read_table(uri: str) -> bytes:
    too_large = RequestError(
        f"slides.metadata: {uri} has more than {MAX_TABLE_BYTES >> 20} MiB: name a CSV table"
    )
    path = local_path(uri)
    if path is None:
        parent, _, name = uri.rpartition("/")
        try:
            return read_object(open_store(parent), name, MAX_TABLE_BYTES)
        except KeyMissing:
            raise RequestError(f"slides.metadata: {uri} does not exist") from None
        except TooLarge:
            raise too_large from None
    try:
        return read_file(path, MAX_TABLE_BYTES)
    except TooLarge:
        raise too_large from None
    except OSError as error:
        raise RequestError(f"slides.metadata: {path} cannot be read: {error.strerror}") from error


def _find_outlines(uri: str, names: Iterable[str]) -> dict[str, OutlinesFile]:
    wanted = {name: str(PurePosixPath(name).with_suffix(OUTLINES_SUFFIX)) for name in names}
    found: dict[str, OutlinesFile] = {}
    root = local_path(uri)
    if root is None:
        store = open_store(uri.rstrip("/"))
        for name, place in wanted.items():
            info = store.head(place)
            if info is not None:
                found[name] = OutlinesFile(uri=store.url(place), size=info.size, version=info.etag)
        return found
    if not root.is_dir():
        raise RequestError(f"slides.outlines: {root} is no folder")
    for name, place in wanted.items():
        path = root / place
        if path.is_file():
            size, version = local_version(path)
            found[name] = OutlinesFile(uri=str(path), size=size, version=version)
    return found
