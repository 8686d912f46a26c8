"""What being watched costs a training step: the calls a step makes to tell of itself, and a scrape
every second, which is more often than Prometheus is ever set to.

The calls are timed apart, thousands of them, because a step varies by more than they take. Whole
steps, watched and unwatched in turn, are there to show what that leaves out.
"""

from __future__ import annotations

import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from figures import Figure, faster, smaller
from hdgan.core.events import Emitter
from hdgan.core.progress import RateMeter
from hdgan.core.telemetry.http_pages import PageServer
from hdgan.core.telemetry.stage_series import GAUGES, StageSeries
from measuring import median_seconds
from networks_compared import SIDES, Size, config_of
from training_step import step_of

CALLS = 2000
STEPS = 4
"""Per turn: some seconds, so that scrapes fall into them."""
REPEATS = 5
SCRAPE_SECONDS = 1.0


def telemetry_overhead() -> tuple[list[Figure], dict[str, object]]:
    """Milliseconds of the calls against those of a step; images per second watched against not."""
    size: Size = "demo64"
    step, images = step_of("ours", size), config_of(size).batch
    series = StageSeries(run="bench", stage="gan-trainer", key="0", device="cpu", scratch=Path())
    with Path("/dev/null").open("w") as nowhere, PageServer("127.0.0.1", 0, series.page) as server:
        tell = _teller(series, Emitter(nowhere, "gan-trainer", lambda: None), images)
        began = time.perf_counter()
        for _ in range(CALLS):
            tell()
        call_seconds = (time.perf_counter() - began) / CALLS

        def unwatched() -> None:
            for _ in range(STEPS):
                step(1)

        def watched() -> None:
            with _scraped(server.port):
                for _ in range(STEPS):
                    step(1)
                    tell()

        medians = median_seconds({"watched": watched, "unwatched": unwatched}, REPEATS)
    step_seconds = medians["unwatched"] / STEPS
    rates = {name: images * STEPS / seconds for name, seconds in medians.items()}
    where = f"{SIDES[size]} px"
    return [
        smaller(
            f"telling of a training step, {where}, against the step",
            call_seconds * 1000,
            step_seconds * 1000,
            "ms",
        ),
        faster(
            f"training step, {where}, read every second, against unread",
            rates["watched"],
            rates["unwatched"],
            "images/s",
        ),
    ], {
        "callMilliseconds": round(call_seconds * 1000, 4),
        "stepMilliseconds": round(step_seconds * 1000, 1),
        "overheadPercent": round(100 * call_seconds / step_seconds, 3),
    }


def _teller(series: StageSeries, emitter: Emitter, images: int) -> Callable[[], None]:
    """What the trainer does beside a step, with a tick's measures at every one: far too often."""
    meter, shown = RateMeter(), 0

    def tell() -> None:
        nonlocal shown
        shown += images
        series.step(0.3, waited=0.01)
        series.images(shown, 0)
        series.queued("tiles", images)
        series.progress(meter.update(time.monotonic(), shown / 1000, 1e6, "kimg"))
        values = dict.fromkeys(GAUGES, 0.5)
        series.measured(values)
        emitter.emit("metric", {"values": values})

    return tell


@contextmanager
def _scraped(port: int) -> Iterator[None]:
    """Within, the page is read every second."""
    done = threading.Event()

    def read() -> None:
        while True:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as page:
                page.read()
            if done.wait(SCRAPE_SECONDS):
                return

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
