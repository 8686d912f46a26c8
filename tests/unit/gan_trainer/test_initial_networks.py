"""Where fine-tuning starts from: the networks that were pinned, or an error that names them."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from hdgan.core.errors import InputMissing, RequestError
from hdgan.core.initial_networks import FILES, networks_digest
from hdgan.core.stage import StageContext
from hdgan.gan_trainer.distribution import Processes
from hdgan.gan_trainer.stage import _initialise
from hdgan.gan_trainer.training import Training


def _context(folder: Path, digest: str) -> StageContext:
    context: dict[str, Any] = {"initFrom": str(folder), "initDigest": digest}
    ctx = SimpleNamespace(request=SimpleNamespace(context=context), value=context.__getitem__)
    return cast("StageContext", ctx)


def test_networks_that_changed_or_cannot_be_read_are_named(tmp_path: Path) -> None:
    for name in FILES:
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "architecture.json").write_text(json.dumps({"resolution": "no number"}))
    pinned = networks_digest(str(tmp_path))
    # The networks are refused before a training would take them.
    training = cast("Training", SimpleNamespace(processes=Processes()))

    with pytest.raises(RequestError, match=rf"ganTrainer\.initFrom: {tmp_path}: "):
        _initialise(_context(tmp_path, pinned), training)

    (tmp_path / "generator.safetensors").write_bytes(b"other")
    with pytest.raises(InputMissing, match=r"ganTrainer\.initFrom: the networks in .* changed"):
        _initialise(_context(tmp_path, pinned), training)
