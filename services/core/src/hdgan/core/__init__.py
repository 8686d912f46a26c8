"""What every room shares: run model, store, artifacts, stage harness, pipeline and the command.

The names below are the public face; they are imported when they are first used, so that nobody
pays for what he does not need.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hdgan.core.artifact import Artifact, Attempt, artifact_key, open_artifact
    from hdgan.core.dataset import DatasetSummary, check_dataset
    from hdgan.core.dataset_export import Exported, export_dataset
    from hdgan.core.errors import (
        DataError,
        HdganError,
        InputMissing,
        InternalError,
        NoSpace,
        RequestError,
        Stopped,
        StoreError,
        StoreUnavailable,
    )
    from hdgan.core.local import RunResult, run_local
    from hdgan.core.run import DatasetRun, load_run, resolve
    from hdgan.core.stage import Stage, StageContext
    from hdgan.core.store import Store, open_store

__all__ = [
    "Artifact",
    "Attempt",
    "DataError",
    "DatasetRun",
    "DatasetSummary",
    "Exported",
    "HdganError",
    "InputMissing",
    "InternalError",
    "NoSpace",
    "RequestError",
    "RunResult",
    "Stage",
    "StageContext",
    "Stopped",
    "Store",
    "StoreError",
    "StoreUnavailable",
    "artifact_key",
    "check_dataset",
    "export_dataset",
    "load_run",
    "open_artifact",
    "open_store",
    "resolve",
    "run_local",
]

_MODULES = {
    "artifact": ("Artifact", "Attempt", "artifact_key", "open_artifact"),
    "dataset": ("DatasetSummary", "check_dataset"),
    "dataset_export": ("Exported", "export_dataset"),
    "errors": (
        "DataError",
        "HdganError",
        "InputMissing",
        "InternalError",
        "NoSpace",
        "RequestError",
        "Stopped",
        "StoreError",
        "StoreUnavailable",
    ),
    "local": ("RunResult", "run_local"),
    "run": ("DatasetRun", "load_run", "resolve"),
    "stage": ("Stage", "StageContext"),
    "store": ("Store", "open_store"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # A module can have the name of nothing exported (checked by a test), so this never hides one.
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
