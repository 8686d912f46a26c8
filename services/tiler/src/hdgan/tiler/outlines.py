"""Fetches the outlines that belong to a slide."""

from __future__ import annotations

from pathlib import Path

from hdgan.core.errors import KeyMissing
from hdgan.core.geojson import MAX_BYTES
from hdgan.core.slide_facts import OutlinesFile
from hdgan.core.slides import local_version
from hdgan.core.store import open_store
from hdgan.tiler.slide import SlideError


def read_outlines(file: OutlinesFile | None) -> bytes:
    """The GeoJSON of a slide, as it was when the run started.

    SlideError if there is none, or it is gone, too large or changed since.
    """
    if file is None:
        raise SlideError(
            "has no outlines: export its objects from QuPath as GeoJSON into slides.outlines, "
            "named like the slide with the ending .geojson"
        )
    if file.size > MAX_BYTES:
        raise SlideError(f"has outlines of {file.size} bytes; at most {MAX_BYTES} are read")
    changed = SlideError(
        f"has outlines at {file.uri} that changed or went since the run started; "
        "start the run again"
    )
    if "://" in file.uri:
        parent, _, name = file.uri.rpartition("/")
        store = open_store(parent)
        info = store.head(name)
        if info is None or (info.size, info.etag) != (file.size, file.version):
            raise changed
        try:
            return store.get(name)
        except KeyMissing as error:
            raise changed from error
    path = Path(file.uri)
    try:
        if local_version(path) != (file.size, file.version):
            raise changed
        return path.read_bytes()
    except OSError as error:
        raise changed from error
