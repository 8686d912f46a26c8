"""All datasets and runs at a glance: did this week's dataset come out, how good is it, and what
needs a person?"""

from __future__ import annotations

from typing import Final

from chart.dashboards.board import Board, Row, Variable
from chart.dashboards.limits import THRESHOLDS
from chart.dashboards.panels import Column, Query, lines, number, rows, steps

DATASETS: Final = 'run_namespace=~"$namespace", dataset=~"$dataset"'
HERE: Final = 'run_namespace=~"$namespace"'
DATASET_LABELS: Final = {"run_namespace": "Namespace", "store": "Store", "dataset": "Dataset"}
RUN_LABELS: Final = {"run_namespace": "Namespace", "dataset": "Dataset", "run": "Run"}
DAY: Final = 86400


def _runs(phase: str) -> str:
    """How many runs are in a phase; 0 where there is none."""
    each = f'max by (run_namespace, run) (hdgan_run_phase{{{DATASETS}, phase=~"{phase}"}})'
    return f"count({each} == 1) or vector(0)"


def _of_dataset(series: str) -> str:
    return f"max by (run_namespace, store, dataset) ({series}{{{DATASETS}}})"


FLEET: Final = Board(
    name="fleet",
    title="hdgan / Fleet",
    words="All datasets and runs: what has come out, how good it is, and what needs a person.",
    since="7d",
    variables=(
        Variable("namespace", "Namespace", "label_values(hdgan_run_phase, run_namespace)"),
        Variable("dataset", "Dataset", "label_values(hdgan_run_phase, dataset)"),
    ),
    rows=(
        Row(
            "Now",
            (
                number(
                    "Alerts",
                    "Alerts of hdgan that fire. Their runbook_url leads to what to do.",
                    "short",
                    Query('count(ALERTS{alertname=~"Hdgan.*", alertstate="firing"}) or vector(0)'),
                    limits=steps("green", (1, "red")),
                ),
                number(
                    "At work",
                    "Runs that have begun and not come to rest.",
                    "short",
                    Query(_runs("Pending|Running")),
                ),
                number(
                    "Waiting for a person",
                    "Runs whose candidates somebody has to label before they go on.",
                    "short",
                    Query(_runs("AwaitingAnnotation")),
                    limits=steps("green", (1, "orange")),
                ),
                number(
                    "Failed",
                    "Runs that have failed, of those that are live or among the last of their "
                    "dataset.",
                    "short",
                    Query(_runs("Failed")),
                    limits=steps("green", (1, "red")),
                ),
                number(
                    "Stopped by a gate",
                    "Runs whose dataset a quality gate did not let through.",
                    "short",
                    Query(_runs("GateFailed")),
                    limits=steps("green", (1, "orange")),
                ),
                number(
                    "Oldest release",
                    "Age of the latest release of the dataset that has waited longest for a new "
                    "one. An unchanged dataset keeps its release.",
                    "s",
                    Query(
                        f"time() - min({_of_dataset('hdgan_dataset_release_timestamp_seconds')})"
                    ),
                    limits=steps("green", (8 * DAY, "orange"), (15 * DAY, "red")),
                ),
            ),
        ),
        Row(
            "Datasets",
            (
                rows(
                    "Datasets",
                    "For each dataset, how long ago its latest release was made, how long ago a "
                    "run last ended well (released it, or found it unchanged), and macro Dice.",
                    (
                        Column(
                            "Released ago",
                            "time() - " + _of_dataset("hdgan_dataset_release_timestamp_seconds"),
                            "s",
                        ),
                        Column(
                            "Ended well ago",
                            "time() - "
                            + _of_dataset("hdgan_dataset_last_success_timestamp_seconds"),
                            "s",
                            steps("green", (8 * DAY, "orange"), (15 * DAY, "red")),
                        ),
                        Column(
                            "Macro Dice",
                            _of_dataset("hdgan_dataset_macro_dice_ratio"),
                            "percentunit",
                        ),
                    ),
                    DATASET_LABELS,
                ),
                lines(
                    "Macro Dice of the latest release",
                    "How well the classifier of each dataset's latest release agrees with the "
                    "expert on the test images. A step is a new release.",
                    "percentunit",
                    Query(_of_dataset("hdgan_dataset_macro_dice_ratio"), "{{dataset}}"),
                    most=1,
                ),
                lines(
                    "Time since a run ended well",
                    "A saw: it falls to 0 with each release, and each run that found its dataset "
                    "unchanged.",
                    "s",
                    Query(
                        "time() - " + _of_dataset("hdgan_dataset_last_success_timestamp_seconds"),
                        "{{dataset}}",
                    ),
                    least=0,
                ),
            ),
        ),
        Row(
            "What needs a person",
            (
                rows(
                    "Alerts that fire",
                    "docs/alerts.md has a section for each of them.",
                    (
                        Column(
                            "Firing",
                            "max by (alertname, severity, run_namespace, namespace, dataset, run, "
                            'stage) (ALERTS{alertname=~"Hdgan.*", alertstate="firing"})',
                            "short",
                        ),
                    ),
                    {
                        "alertname": "Alert",
                        "severity": "Severity",
                        "run_namespace": "Namespace of the run",
                        "namespace": "Namespace of the pod",
                        "dataset": "Dataset",
                        "run": "Run",
                        "stage": "Stage",
                    },
                    hidden=True,
                ),
                rows(
                    "Failed runs",
                    "Stage and reason of each; docs/kubernetes.md has a table of the reasons.",
                    (
                        Column(
                            "Failed",
                            "max by (run_namespace, dataset, run, stage, reason) "
                            f"(hdgan_run_failure_info{{{DATASETS}}})",
                            "short",
                        ),
                    ),
                    {**RUN_LABELS, "stage": "Stage", "reason": "Reason"},
                    width=12,
                    hidden=True,
                ),
                rows(
                    "Waiting for annotations",
                    "Runs that go on once their candidates are labelled, and how long they wait.",
                    (
                        Column(
                            "Waits for",
                            "time() - max by (run_namespace, dataset, run) "
                            "(hdgan_run_awaiting_annotation_since_timestamp_seconds"
                            f"{{{DATASETS}}})",
                            "s",
                            steps(
                                "green",
                                (3 * DAY, "orange"),
                                (DAY * THRESHOLDS["annotationDays"], "red"),
                            ),
                        ),
                    ),
                    RUN_LABELS,
                    width=12,
                ),
            ),
        ),
        Row(
            "Runs",
            (
                lines(
                    "Runs by phase",
                    "Live runs, and the last few of each dataset.",
                    "short",
                    Query(
                        "sum by (phase) (max by (run_namespace, run, phase) "
                        f"(hdgan_run_phase{{{DATASETS}}})) > 0",
                        "{{phase}}",
                    ),
                    stacked=True,
                    least=0,
                ),
                lines(
                    "Jobs by state",
                    "Jobs of stages: pending ones wait for a node, suspended ones for their queue.",
                    "short",
                    Query(
                        f"sum by (state) (max by (run_namespace, state) (hdgan_controller_jobs"
                        f"{{{HERE}}}))",
                        "{{state}}",
                    ),
                    stacked=True,
                    least=0,
                ),
                lines(
                    "How attempts ended",
                    "Attempts at stages that ended within the hour before, by reason. Preempted, "
                    "Drained and their like go on from saved work.",
                    "short",
                    Query(
                        "sum by (reason) (increase(hdgan_controller_attempts_ended_total"
                        f"{{{HERE}}}[1h])) > 0",
                        "{{reason}}",
                    ),
                    stacked=True,
                    least=0,
                ),
                lines(
                    "Runs the controller knows",
                    "All runs in the watched namespaces, also those without series of their own.",
                    "short",
                    Query(
                        "sum by (phase) (max by (run_namespace, phase) (hdgan_controller_runs"
                        f"{{{HERE}}})) > 0",
                        "{{phase}}",
                    ),
                    stacked=True,
                    least=0,
                ),
            ),
        ),
        Row(
            "Controller",
            (
                number(
                    "Leading",
                    "Replicas that lead: one. None for a while after a restart.",
                    "short",
                    Query("sum(hdgan_controller_leading)"),
                    limits=steps("red", (1, "green"), (2, "orange")),
                    width=6,
                ),
                number(
                    "Namespaces unseen",
                    "Watched namespaces whose objects cannot be listed or watched.",
                    "short",
                    Query(
                        "count(max by (run_namespace) (hdgan_controller_namespace_seen"
                        f"{{{HERE}}}) == 0) or vector(0)"
                    ),
                    limits=steps("green", (1, "red")),
                    width=6,
                ),
                number(
                    "Stores that do not answer",
                    "Stores the controller did not reach when it last looked.",
                    "short",
                    Query(
                        "count(max by (run_namespace, store) (hdgan_controller_store_reachable"
                        f"{{{HERE}}}) == 0) or vector(0)"
                    ),
                    limits=steps("green", (1, "red")),
                    width=6,
                ),
                number(
                    "Runs that are due",
                    "Runs that wait to be looked at. It should be near 0.",
                    "short",
                    Query("sum(hdgan_controller_queue_depth)"),
                    limits=steps("green", (50, "orange")),
                    width=6,
                ),
                lines(
                    "Time of a look at a run",
                    "With what was done about it. Half of the looks take less than the lower line, "
                    "99 of 100 less than the upper.",
                    "s",
                    *(
                        Query(
                            f"histogram_quantile({share}, sum by (le) (rate("
                            "hdgan_controller_reconcile_seconds_bucket[$__rate_interval])))",
                            name,
                        )
                        for share, name in (("0.5", "half"), ("0.99", "99 %"))
                    ),
                    width=12,
                    least=0,
                ),
                lines(
                    "Looks at runs",
                    "By outcome. Conflicts are repeated and mean nothing; errors should not be.",
                    "ops",
                    Query(
                        "sum by (outcome) (rate(hdgan_controller_reconciles_total"
                        "[$__rate_interval]))",
                        "{{outcome}}",
                    ),
                    width=12,
                    least=0,
                ),
            ),
        ),
    ),
)
