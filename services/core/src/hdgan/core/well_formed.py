"""Documents that are valid JSON and hold something else than the code that reads them expects."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from hdgan.core.artifact import Artifact
from hdgan.core.errors import InputMissing
from hdgan.core.json_documents import reason


@contextmanager
def well_formed(what: Artifact | str) -> Iterator[None]:
    """InputMissing, naming the artifact or what else is read, where the block finds that something
    is missing in it or is of another kind.

    Digests find what was damaged. Whoever can write to a store can write digests that match; his
    documents end here, with the place in the message, not as a bug of ours.
    """
    try:
        yield
    # ValueError: pydantic's and ours, too. RuntimeError: torch's, for shapes that do not fit.
    except (
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
        ArithmeticError,
        RuntimeError,
    ) as error:
        if isinstance(what, Artifact):
            place = f"artifacts/{what.manifest.stage}/{what.manifest.key}"
            what = what.store.url(place)
        raise InputMissing(
            f"{what} does not have the form this version reads ({type(error).__name__}: "
            f"{reason(error)}): restore it, or delete it and run again"
        ) from error
