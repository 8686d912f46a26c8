"""Many DatasetRuns at once through the controller: how long a look at one takes, what it costs the
API server, and memory.

The API server, its Job controller and kubelet are the tests' fake, in a process of its own; the
store is a folder. A real server answers slower; the number of requests is the same.
"""

from __future__ import annotations

import copy
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest import mock

import yaml

from figures import Figure
from measuring import in_fresh_process

ROOT = Path(__file__).parents[1]
RUNS = 1000
MAX_ACTIVE = 50
SECONDS = 1800.0
TICK = 0.2
"""Seconds between two looks of the simulated cluster at its Jobs: less, and they are what is
measured."""
NAMESPACE = "team"
SERVICES = ("tiler", "ganTrainer", "extractor", "classifier", "synthesizer")


def controller_fleet() -> tuple[list[Figure], dict[str, object]]:
    """Reconciles' 99th percentile, requests per run, memory."""
    found = in_fresh_process(measured, RUNS, seconds=SECONDS)
    if found is None:
        raise RuntimeError(f"{RUNS} runs did not converge within {SECONDS:g} s")
    memory = found["peakBytes"] / 1e6
    figures = [
        Figure(f"controller, {RUNS:,} runs: reconcile, 99th percentile", found["p99"] * 1e3, "ms"),
        Figure(f"controller, {RUNS:,} runs: requests per run", found["requestsPerRun"], ""),
        Figure(f"controller, {RUNS:,} runs: memory", memory, "MB", peak_rss_mb=memory),
    ]
    return figures, {key: round(value, 4) for key, value in found.items()}


def measured(count: int) -> dict[str, float]:
    """Take `count` runs from nothing to a dataset. In a process of its own."""
    sys.path.insert(0, str(ROOT / "tests"))
    from kubernetes import client, config

    from hdgan.controller import api as paths
    from hdgan.controller.api import Api
    from hdgan.controller.controller import Controller
    from hdgan.controller.settings import Settings
    from hdgan.core.pipeline import External
    from hdgan.core.store import open_store
    from measuring import peak_memory
    from support.cluster_store import annotate
    from support.runs import DOCUMENT

    with tempfile.TemporaryDirectory(prefix="hdgan-bench-") as folder:
        store = open_store((Path(folder) / "store").as_uri())
        with _served(Path(folder)) as (kubeconfig, requests):
            api = Api(config.new_client_from_config(str(kubeconfig)))
            core = client.CoreV1Api(config.new_client_from_config(str(kubeconfig)))
            core.create_namespace(client.V1Namespace(metadata=client.V1ObjectMeta(name=NAMESPACE)))
            crd = yaml.safe_load((ROOT / "k8s/crd/datasetruns.hdgan.io.yaml").read_text())
            client.ApiextensionsV1Api(core.api_client).create_custom_resource_definition(crd)
            settings = Settings.model_validate(
                {
                    "namespaces": [
                        {"name": NAMESPACE, "stores": {"default": {"uri": "s3://bench/store"}}}
                    ],
                    "images": {name: {"image": f"registry.test/{name}:1"} for name in SERVICES},
                    "maxActiveJobs": MAX_ACTIVE,
                    "storePollSeconds": 1.0,
                },
                by_alias=True,
                by_name=False,
            )
            pinned = External(slides_key="work/slides/x.json", slides_digest="5" * 64)
            times: list[float] = []
            before = requests()

            def work() -> None:
                controller = Controller(api, settings)
                plain = controller.reconcile

                def timed(namespace: str, name: str) -> float | None:
                    started = time.perf_counter()
                    try:
                        return plain(namespace, name)
                    finally:
                        times.append(time.perf_counter() - started)

                controller.reconcile = timed  # type: ignore[method-assign]
                controller.start()
                for number in range(count):
                    document: dict[str, Any] = copy.deepcopy(DOCUMENT)
                    document["metadata"]["name"] = f"run-{number}"
                    document["spec"]["slides"]["uri"] = "s3://bench/store/slides"
                    document["spec"]["tiler"]["mpp"] = 1.0 + number / 1000
                    api.create(paths.RUNS, NAMESPACE, document)
                annotated: set[str] = set()
                done = 0
                while done < count:
                    time.sleep(2.0)
                    done = 0
                    for document in controller._spaces[NAMESPACE].runs.all():
                        status = document.get("status") or {}
                        done += status.get("phase") in ("Released", "Unchanged")
                        if status.get("phase") == "Failed":
                            raise RuntimeError(status["message"])
                        name = document["metadata"]["name"]
                        if status.get("phase") == "AwaitingAnnotation" and name not in annotated:
                            annotated.add(name)
                            stages = {one["name"]: one for one in status["stages"]}
                            digest = stages["candidates"]["contentDigest"]
                            annotate(store, digest, DOCUMENT)
                controller.stop()

            with (
                mock.patch("hdgan.controller.looking.open_store", return_value=store),
                mock.patch("hdgan.controller.looking.pin_external", return_value=pinned),
            ):
                memory = peak_memory(work)
            return {
                "runs": count,
                "seconds": memory.seconds,
                "reconciles": len(times),
                "median": statistics.median(times),
                "p99": statistics.quantiles(times, n=100)[98],
                "requestsPerRun": (requests() - before) / count,
                "peakBytes": memory.peak,
            }


@contextmanager
def _served(folder: Path) -> Iterator[tuple[Path, Any]]:
    """The fake API server in a process of its own; its kubeconfig, and how to count requests."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(folder, theirs), daemon=False)
    process.start()

    def requests() -> int:
        ours.send("count")
        return int(ours.recv())

    try:
        yield ours.recv(), requests
    finally:
        ours.send("stop")
        process.join(30)
        process.terminate()


def _serve(folder: Path, told: Connection) -> None:
    sys.path.insert(0, str(ROOT / "tests"))
    from cluster.fake_api.fates import Fate, PodStart, Runs
    from cluster.fake_api.jobs import SimulatedJobs
    from cluster.fake_api.server import FakeApiServer
    from hdgan.core.store import open_store
    from support.cluster_store import make_artifact

    store = open_store((folder / "store").as_uri())

    def script(start: PodStart) -> Fate:
        meta = start.pod["metadata"]
        make_artifact(store, meta["labels"]["hdgan.io/stage"], meta["annotations"]["hdgan.io/key"])
        return Runs(seconds=0.05)

    with FakeApiServer() as server, SimulatedJobs(server, script, tick=TICK):
        told.send(server.kubeconfig(folder / "kubeconfig"))
        while told.recv() == "count":
            told.send(server.requests.mark())


if __name__ == "__main__":
    print(measured(int(sys.argv[1]) if len(sys.argv) > 1 else RUNS))
