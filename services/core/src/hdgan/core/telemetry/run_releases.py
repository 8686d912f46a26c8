"""The latest release of each dataset in a store, for its series: kept by the store itself, so that
they outlive runs and restarts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from hdgan.core.errors import InputMissing
from hdgan.core.gates import finite
from hdgan.core.releases import latest
from hdgan.core.store import Store
from hdgan.core.telemetry.run_series import DatasetLook

MOST_DATASETS: Final = 1000
"""Datasets of a store that have series: the first by name."""


@dataclass(frozen=True)
class Latest:
    """The latest release of a dataset."""

    pointer: str
    """Highest of the pointers that were listed when it was read; another means another release."""
    released: float
    """When it was made, in seconds since 1970."""
    macro_dice: float | None


def read_latest(store: Store, known: Mapping[str, Latest]) -> dict[str, Latest]:
    """The latest releases by name of the dataset. One listing of the store, and what that shows to
    be new since `known`, or was not to be read then. StoreError if the store does not answer."""
    pointers: dict[str, str] = {}
    for key in store.list("datasets/"):
        _, dataset, kind, *_ = (*key.split("/"), "", "")
        if kind == "pointer":
            pointers[dataset] = max(key, pointers.get(dataset, ""))
    found = {}
    for dataset, pointer in sorted(pointers.items())[:MOST_DATASETS]:
        before = known.get(dataset)
        if before is not None and before.pointer == pointer:
            found[dataset] = before
            continue
        try:
            release = latest(store, dataset)
        except InputMissing:  # damaged, or gone: it has no values until it is restored
            continue
        if release is not None:
            made = release.created.timestamp()
            found[dataset] = Latest(pointer, made, finite(release.macro_dice))
    return found


def dataset_looks(namespace: str, store: str, releases: Mapping[str, Latest]) -> list[DatasetLook]:
    """As they are shown.

    store  the name runs know it by
    """
    return [
        DatasetLook(
            dataset=name,
            namespace=namespace,
            store=store,
            released=one.released,
            macro_dice=one.macro_dice,
        )
        for name, one in releases.items()
    ]
