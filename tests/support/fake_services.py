"""Stand-ins for all services, so that the runner can be tested with real processes in seconds.

`install(folder)` writes a package `hdgan.<service>` for each to put on PYTHONPATH. What a stage
does comes from `<folder>/plan/<stage>`: one word per start, the last one repeated; `ok` if absent.
"""

from __future__ import annotations

import io
import json
import os
import signal
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic import BaseModel, TypeAdapter

from hdgan.core.errors import DataError, InputMissing, Stopped
from hdgan.core.pipeline import NODES, STAGE_VERSIONS
from hdgan.core.process import Ended
from hdgan.core.request import StageRequest
from hdgan.core.run import (
    CandidatesConfig,
    ClassConfig,
    ClassifierConfig,
    ExtractorConfig,
    GanTrainerConfig,
    SynthesizerConfig,
    TilerConfig,
)
from hdgan.core.stage import Stage, StageContext, run_stage

FOLDER_VARIABLE = "FAKE_SERVICES"
PAIRS_VARIABLE = "FAKE_PAIRS"
"""How many pairs a dataset has, whatever it should have."""
TESTS = Path(__file__).resolve().parents[1]

EVALUATION = {
    "kid": {"whole": {"mean": 0.02, "standard_error": 0.001}},
    "memorisation": {"share": 0.01},
    "extractor": {"name": "EfficientNet-Lite0 (not really)"},
}

CONFIGS: dict[str, type[BaseModel]] = {
    "tiler": TilerConfig,
    "gan-trainer": GanTrainerConfig,
    "drift": GanTrainerConfig,
    "candidates": CandidatesConfig,
    "ranking": CandidatesConfig,
    "reranking": CandidatesConfig,
    "extractor": ExtractorConfig,
    "classifier": ClassifierConfig,
    "dataset": SynthesizerConfig,
}


def install(folder: Path) -> dict[str, str]:
    """Write the fake services below `folder`; returns the environment that makes them found."""
    for service in {node.service for node in NODES}:
        package = folder / "hdgan" / service
        package.mkdir(parents=True, exist_ok=True)
        (package / "__init__.py").write_text("")
        (package / "__main__.py").write_text(
            "from hdgan.core.stage import main\n"
            "from support.fake_services import STAGES\n"
            "main(*STAGES)\n"
        )
    (folder / "plan").mkdir(exist_ok=True)
    return {FOLDER_VARIABLE: str(folder), "PYTHONPATH": f"{folder}:{TESTS}"}


def run_here(request: StageRequest, **_: object) -> Ended:
    """Instead of `hdgan.core.process.run_stage_process`: the fake stage in this process, without
    the second it takes to start one."""
    path = Path(os.environ[FOLDER_VARIABLE]) / "request.json"
    path.write_text(request.model_dump_json(by_alias=True))
    output = io.StringIO()
    code = run_stage(tuple(STAGES), {"HDGAN_REQUEST": str(path)}, output)
    return Ended(code, None, output.getvalue().splitlines(), path, False)


def plan(folder: Path, stage: str, *words: str) -> None:
    """What the next starts of a stage do. See `behave` for the words."""
    (folder / "plan" / stage).write_text(" ".join(words))


def starts(folder: Path) -> list[str]:
    """Every start of a stage so far, as `stage:word`."""
    path = folder / "starts"
    return path.read_text().split() if path.exists() else []


def forget(folder: Path) -> None:
    (folder / "starts").unlink(missing_ok=True)


def behave(ctx: StageContext) -> None:
    folder = Path(os.environ[FOLDER_VARIABLE])
    word = _next_word(folder, ctx.request.stage)
    with (folder / "starts").open("a") as file:
        file.write(f"{ctx.request.stage}:{word}\n")
    saved = ctx.work.latest()
    step = saved.step if saved else 0
    match word:
        case "stop":
            ctx.work.save(step + 1, {"state": b"state"}, {})
            raise Stopped("stopped early")
        case "stall":
            raise Stopped("stopped early")
        case "bad":
            ctx.log("looking at slide 7")
            raise DataError("slide 7 is broken")
        case "bug":
            raise ValueError("a bug")
        case "missing":
            raise InputMissing("features are missing")
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "slow":
            _slowly(ctx, step)
        case "ok":
            ctx.progress(1, 1, "steps")
            _fill(ctx)
        case other:
            raise AssertionError(other)


def _next_word(folder: Path, stage: str) -> str:
    path = folder / "plan" / stage
    words = path.read_text().split() if path.exists() else ["ok"]
    if len(words) > 1:
        path.write_text(" ".join(words[1:]))
    return words[0]


def _slowly(ctx: StageContext, step: int) -> None:
    """Work until told to stop."""
    deadline = time.monotonic() + 30
    while not ctx.stop_requested and time.monotonic() < deadline:
        ctx.progress(step, 100, "steps")
        time.sleep(0.02)
    ctx.work.save(step + 1, {"state": b"state"}, {})
    ctx.check_stop()


def _fill(ctx: StageContext) -> None:
    """The least that later stages and the runner look at."""
    for name in ctx.request.inputs:
        ctx.input(name)
    if ctx.stage.name == "extractor":
        features = ctx.scratch / "features" / ctx.request.key
        features.mkdir(parents=True, exist_ok=True)
        (features / "index.json").write_text("{}")
    elif ctx.stage.name == "classifier":
        key = str(ctx.value("featuresKey"))
        if not (ctx.scratch / "features" / key / "index.json").exists():
            raise InputMissing(f"features {key} are not on scratch")
        ctx.output.add_bytes("scores.json", json.dumps(_scores(ctx)).encode())
    elif ctx.stage.name == "dataset":
        from support.tiny_dataset import write_dataset  # pyarrow: a second for each fake stage

        classes = TypeAdapter(list[ClassConfig]).validate_python(ctx.value("classes"))
        with TemporaryDirectory() as folder:
            count = int(os.environ.get(PAIRS_VARIABLE, ctx.config.count))
            write_dataset(Path(folder), classes, count=count)
            for path in sorted(Path(folder).iterdir()):
                ctx.output.add_file(path.name, path)
    elif ctx.stage.name == "drift":
        ctx.output.add_bytes("drift.json", json.dumps({"kid": {"whole": {"mean": 0.1}}}).encode())
    else:
        config = ctx.config.model_dump_json()
        ctx.output.add_bytes("output.txt", f"{ctx.stage.name} {config}".encode())
        if ctx.stage.name == "gan-trainer" and ctx.config.feature_extractor != "none":
            ctx.output.add_bytes("evaluation.json", json.dumps(EVALUATION).encode())
        if ctx.stage.name == "tiler":
            # Other slides are other tiles.
            ctx.output.add_bytes("folds.parquet", ctx.request.key.encode())


def _scores(ctx: StageContext) -> dict[str, object]:
    """0.9 macro Dice after ten epochs, a thousandth less for each epoch fewer."""
    classes = TypeAdapter(list[ClassConfig]).validate_python(ctx.value("classes"))
    dice = round(0.89 + ctx.config.epochs / 1000, 6)
    iou = {one.name: round(0.8 - 0.1 * place, 6) for place, one in enumerate(classes)}
    return {"test": {"dice": {"macro": dice}, "iou": {"perClass": iou}}}


STAGES = [
    Stage(node.name, STAGE_VERSIONS[node.name], CONFIGS[node.name], behave, artifact=not node.cache)
    for node in NODES
]
