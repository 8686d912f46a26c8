"""The requests of a Job: what the local runner would start the same stages with."""

from __future__ import annotations

from hdgan.controller.facts import FEATURES_CONTAINER, STAGE_CONTAINER
from hdgan.controller.reporting import SCRATCH
from hdgan.controller.settings import Settings
from hdgan.controller.unit import Unit
from hdgan.controller.wanted import scratch_of, wanted
from hdgan.controller.wanted import threads as threads_of
from hdgan.core.pipeline import BY_NAME, External, Observed, stage_request
from hdgan.core.request import StageRequest
from hdgan.core.run import DatasetRun


def requests_for(
    unit: Unit,
    run: DatasetRun,
    external: External,
    observed: Observed,
    settings: Settings,
    namespace: str,
) -> dict[str, StageRequest]:
    """Requests by the container they are for. `run` is resolved."""
    store = settings.store(namespace, run.spec.resources.store).uri

    def request(stage: str) -> StageRequest:
        made = stage_request(BY_NAME[stage], run, external, observed, store=store, scratch=SCRATCH)
        cpu = wanted(run, stage, settings).get("cpu")
        threads = made.threads or (threads_of(cpu) if cpu else None)
        return made.model_copy(update={"threads": threads})

    requests = {
        STAGE_CONTAINER: request(unit.stage).model_copy(
            update={"parts": unit.parts, "commit": unit.kind == "commit"}
        )
    }
    in_one_pod = scratch_of(run, settings).claim is None
    if unit.stage == "classifier" and in_one_pod:
        requests[FEATURES_CONTAINER] = request("extractor")
    return requests
