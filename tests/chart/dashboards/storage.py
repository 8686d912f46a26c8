"""The store as its users see it, and scratch."""

from __future__ import annotations

from typing import Final

from chart.dashboards.board import Board, Row, Variable
from chart.dashboards.limits import THRESHOLDS
from chart.dashboards.panels import Query, bars, lines, number, steps

HERE: Final = 'namespace=~"$namespace"'
RATE: Final = "[$__rate_interval]"
REQUESTS: Final = "hdgan_store_requests_total"
LEAST_FREE: Final = THRESHOLDS["scratchFreeRatio"]
BAD: Final = 'outcome=~"failed|unanswered"'


def _share(selector: str) -> str:
    return f"sum(rate({REQUESTS}{{{selector}}}{RATE})) / sum(rate({REQUESTS}{{{HERE}}}{RATE}))"


FREE: Final = f"hdgan_scratch_free_bytes{{{HERE}}}"
USED: Final = f"hdgan_scratch_used_bytes{{{HERE}}}"

STORAGE: Final = Board(
    name="storage",
    title="hdgan / Storage",
    words="The store as stages and controller see it: outcomes, time, bytes; and scratch.",
    since="6h",
    variables=(
        Variable("namespace", "Namespace", "label_values(hdgan_store_requests_total, namespace)"),
    ),
    rows=(
        Row(
            "Now",
            (
                number(
                    "Requests",
                    "To the store, in a second, by all processes.",
                    "reqps",
                    Query(f"sum(rate({REQUESTS}{{{HERE}}}{RATE}))"),
                    decimals=1,
                ),
                number(
                    "Requests that fail",
                    "Share that the store failed at or did not answer. HdganStoreErrors begins at "
                    f"{THRESHOLDS['storeErrorRatio']:.0%} of a process.",
                    "percentunit",
                    Query(_share(f"{BAD}, {HERE}")),
                    decimals=2,
                    limits=steps("green", (0.01, "orange"), (THRESHOLDS["storeErrorRatio"], "red")),
                ),
                number(
                    "Requests made again",
                    "In a second, after one that failed.",
                    "reqps",
                    Query(f"sum(rate(hdgan_store_retries_total{{{HERE}}}{RATE}))"),
                    decimals=2,
                ),
                number(
                    "Read",
                    "From the store.",
                    "Bps",
                    Query(
                        "sum(rate(hdgan_store_transferred_bytes_total"
                        f'{{direction="read", {HERE}}}{RATE}))'
                    ),
                ),
                number(
                    "Written",
                    "To the store.",
                    "Bps",
                    Query(
                        "sum(rate(hdgan_store_transferred_bytes_total"
                        f'{{direction="written", {HERE}}}{RATE}))'
                    ),
                ),
                number(
                    "Scratch that is free",
                    f"Of the fullest disk. HdganScratchNearlyFull begins at {LEAST_FREE:.0%}.",
                    "percentunit",
                    Query(f"min({FREE} / ({FREE} + {USED}))"),
                    decimals=0,
                    limits=steps("red", (LEAST_FREE, "orange"), (2 * LEAST_FREE, "green")),
                ),
            ),
        ),
        Row(
            "Requests",
            (
                lines(
                    "Requests by outcome",
                    "missing (no such object) is an answer and usual; refused is by a rule, of "
                    "access above all; failed and unanswered are the store's or the network's "
                    "fault.",
                    "reqps",
                    Query(f"sum by (outcome) (rate({REQUESTS}{{{HERE}}}{RATE}))", "{{outcome}}"),
                    stacked=True,
                    least=0,
                ),
                lines(
                    "Requests by operation",
                    "Those of S3's API, or operations on files.",
                    "reqps",
                    Query(
                        f"sum by (operation) (rate({REQUESTS}{{{HERE}}}{RATE}))",
                        "{{operation}}",
                    ),
                    stacked=True,
                    least=0,
                ),
                lines(
                    "Failed by process",
                    "Requests that failed or got no answer, by who made them. All processes at "
                    "once: the store; those of one node: its network.",
                    "reqps",
                    Query(
                        "sum by (namespace, pod, instance) (rate("
                        f"{REQUESTS}{{{BAD}, {HERE}}}{RATE})) > 0",
                        "{{pod}} {{instance}}",
                    ),
                    least=0,
                ),
                lines(
                    "Requests made again",
                    "After one that failed.",
                    "reqps",
                    Query(
                        "sum by (namespace, pod, instance) (rate(hdgan_store_retries_total"
                        f"{{{HERE}}}{RATE})) > 0",
                        "{{pod}} {{instance}}",
                    ),
                    least=0,
                ),
            ),
        ),
        Row(
            "Time and bytes",
            (
                *(
                    lines(
                        f"Time to the answer, {name}",
                        words,
                        "s",
                        Query(
                            f"histogram_quantile({share}, sum by (operation, le) (rate("
                            f"hdgan_store_request_seconds_bucket{{{HERE}}}{RATE})))",
                            "{{operation}}",
                        ),
                        least=0,
                    )
                    for share, name, words in (
                        ("0.5", "median", "Half of the requests are answered sooner."),
                        ("0.99", "99 %", "99 of 100 requests are answered sooner."),
                    )
                ),
                lines(
                    "Bytes",
                    "Contents read from and written to the store.",
                    "Bps",
                    Query(
                        "sum by (direction) (rate(hdgan_store_transferred_bytes_total"
                        f"{{{HERE}}}{RATE}))",
                        "{{direction}}",
                    ),
                    least=0,
                ),
                lines(
                    "Mean time to the answer",
                    "Over all operations.",
                    "s",
                    Query(
                        f"sum(rate(hdgan_store_request_seconds_sum{{{HERE}}}{RATE})) / "
                        f"sum(rate(hdgan_store_request_seconds_count{{{HERE}}}{RATE}))",
                        "all",
                    ),
                    least=0,
                ),
            ),
        ),
        Row(
            "Scratch",
            (
                lines(
                    "Share of scratch that is free",
                    "Of the disk under the scratch of each process. The dashed line is where "
                    "HdganScratchNearlyFull begins.",
                    "percentunit",
                    Query(
                        f"min by (run, stage, pod) ({FREE} / ({FREE} + {USED}))",
                        "{{run}} {{stage}} {{pod}}",
                    ),
                    least=0,
                    most=1,
                    limits=steps("red", (LEAST_FREE, "green")),
                ),
                bars(
                    "Scratch that is used",
                    "On the disk of scratch, by whoever.",
                    "bytes",
                    Query(f"max by (run, stage, pod) ({USED})", "{{run}} {{stage}} {{pod}}"),
                ),
            ),
        ),
    ),
)
