"""One run: where it is, what each stage took, and what came of it."""

from __future__ import annotations

from typing import Final

from chart.dashboards.board import Board, Row, Variable
from chart.dashboards.limits import THRESHOLDS
from chart.dashboards.panels import Column, Query, bars, lines, number, rows, steps

RUN: Final = 'run_namespace=~"$namespace", dataset=~"$dataset", run=~"$run"'
STAGE: Final = 'namespace=~"$namespace", run=~"$run"'


def _each(series: str, *labels: str) -> str:
    """By run and these labels, whichever replica of the controller tells it."""
    return f"max by ({', '.join(('run', *labels))}) ({series}{{{RUN}}})"


ONE_RUN: Final = Board(
    name="run",
    title="hdgan / Run",
    words="One run: its stages, what they cost, how good the dataset is, and the stage at work.",
    since="2d",
    variables=(
        Variable("namespace", "Namespace", "label_values(hdgan_run_phase, run_namespace)"),
        Variable(
            "dataset",
            "Dataset",
            'label_values(hdgan_run_phase{run_namespace=~"$namespace"}, dataset)',
        ),
        Variable(
            "run",
            "Run",
            'label_values(hdgan_run_phase{run_namespace=~"$namespace", dataset=~"$dataset"}, run)',
        ),
    ),
    rows=(
        Row(
            "State",
            (
                number(
                    "Phase",
                    "Phase of each run that is chosen.",
                    "short",
                    Query(_each("hdgan_run_phase", "phase") + " == 1", "{{run}}: {{phase}}"),
                    width=6,
                    names=True,
                ),
                number(
                    "Took so far",
                    "From its beginning to its end, or to now.",
                    "s",
                    Query(
                        f"({_each('hdgan_run_finish_time_seconds')} or "
                        f"{_each('hdgan_run_start_time_seconds')} * 0 + time()) - "
                        f"{_each('hdgan_run_start_time_seconds')}",
                        "{{run}}",
                    ),
                    width=6,
                ),
                number(
                    "Waits for annotations",
                    "How long somebody has kept it waiting; nothing while it does not wait.",
                    "s",
                    Query(
                        "time() - "
                        + _each("hdgan_run_awaiting_annotation_since_timestamp_seconds"),
                        "{{run}}",
                    ),
                    width=6,
                    limits=steps(
                        "green",
                        (3 * 86400, "orange"),
                        (86400 * THRESHOLDS["annotationDays"], "red"),
                    ),
                ),
                number(
                    "Failed with",
                    "Stage and reason, if it has failed.",
                    "short",
                    Query(
                        _each("hdgan_run_failure_info", "stage", "reason"),
                        "{{run}}: {{stage}} {{reason}}",
                    ),
                    width=6,
                    limits=steps("red"),
                    names=True,
                ),
                rows(
                    "Stages",
                    "Where each stage stands, and how many attempts it took.",
                    (
                        Column("Attempts", _each("hdgan_run_stage_attempts", "stage"), "short"),
                        Column(
                            "In that state",
                            _each("hdgan_run_stage_state", "stage", "state") + " == 1",
                            "short",
                        ),
                    ),
                    {"run": "Run", "stage": "Stage", "state": "State"},
                    width=12,
                ),
                rows(
                    "Gates",
                    "Gates that are set: 1 let the dataset through, 0 did not.",
                    (
                        Column(
                            "Passed",
                            _each("hdgan_run_gate_passed", "gate"),
                            "short",
                            steps("red", (1, "green")),
                        ),
                    ),
                    {"run": "Run", "gate": "Gate"},
                    width=12,
                ),
            ),
        ),
        Row(
            "What it cost",
            (
                bars(
                    "Duration of stages",
                    "Of the attempt that made the artifact; attempts before it are not in it.",
                    "s",
                    Query(_each("hdgan_run_stage_duration_seconds", "stage"), "{{run}} {{stage}}"),
                ),
                bars(
                    "Device time of stages",
                    "Duration times processes, by device: multiply it by the price of such a "
                    "device.",
                    "s",
                    Query(
                        _each("hdgan_run_stage_device_seconds", "stage", "device"),
                        "{{run}} {{stage}} {{device}}",
                    ),
                ),
            ),
        ),
        Row(
            "How good it is",
            (
                number(
                    "Macro Dice",
                    "Mean over the classes on the test images: 100 % is full agreement with the "
                    "expert.",
                    "percentunit",
                    Query(_each("hdgan_run_macro_dice_ratio"), "{{run}}"),
                    decimals=1,
                ),
                number(
                    "Calibration error",
                    "Expected calibration error on the test images: how far the classifier's "
                    "probabilities are from how often it is right.",
                    "percentunit",
                    Query(_each("hdgan_run_calibration_error_ratio"), "{{run}}"),
                    decimals=1,
                    limits=steps("green", (0.1, "orange"), (0.2, "red")),
                ),
                number(
                    "KID of the generator",
                    "Kernel inception distance of generated images to held-out tiles; lower is "
                    "nearer.",
                    "short",
                    Query(_each("hdgan_run_kid"), "{{run}}"),
                    decimals=4,
                ),
                number(
                    "Drift",
                    "Kernel inception distance of new tiles to a pinned generator's images. If it "
                    "grows from run to run, the slides are no longer what it was trained on.",
                    "short",
                    Query(_each("hdgan_run_drift_kid"), "{{run}}"),
                    decimals=4,
                ),
                number(
                    "Pairs",
                    "Pairs of image and mask in the dataset.",
                    "short",
                    Query(_each("hdgan_run_pairs"), "{{run}}"),
                    width=8,
                ),
                bars(
                    "Dice of classes",
                    "On the test images. A class far below the others wants more annotations.",
                    "percentunit",
                    Query(_each("hdgan_run_dice_ratio", "class"), "{{run}} {{class}}"),
                    most=1,
                ),
                bars(
                    "IoU of classes",
                    "Intersection over union on the test images.",
                    "percentunit",
                    Query(_each("hdgan_run_iou_ratio", "class"), "{{run}} {{class}}"),
                    most=1,
                ),
            ),
        ),
        Row(
            "The stage at work",
            (
                lines(
                    "Progress",
                    "Done of the work at hand. A stage may have several pieces of work, one after "
                    "another, and each begins at 0.",
                    "percentunit",
                    Query(
                        f"max by (run, stage, pod) (hdgan_stage_progress_ratio{{{STAGE}}})",
                        "{{run}} {{stage}} {{pod}}",
                    ),
                    least=0,
                    most=1,
                ),
                lines(
                    "Throughput",
                    "How much is done in a second, by the unit of the work at hand.",
                    "cps",
                    Query(
                        "sum by (run, stage, unit) (rate(hdgan_stage_work_total"
                        f"{{{STAGE}}}[$__rate_interval]))",
                        "{{stage}} {{unit}}",
                    ),
                    least=0,
                ),
                lines(
                    "Time without progress",
                    "How long ago the work got further the last time. The dashed line is where "
                    "HdganStageStalled begins.",
                    "s",
                    Query(
                        "time() - max by (run, stage, pod) "
                        f"(hdgan_stage_last_progress_timestamp_seconds{{{STAGE}}})",
                        "{{run}} {{stage}} {{pod}}",
                    ),
                    least=0,
                    limits=steps("green", (60 * THRESHOLDS["stallMinutes"], "red")),
                ),
                lines(
                    "Rejects",
                    "Tiles the tiler and images the synthesizer leaves out in a second, by reason.",
                    "cps",
                    Query(
                        "sum by (stage, reason) (rate(hdgan_stage_rejects_total"
                        f"{{{STAGE}}}[$__rate_interval]))",
                        "{{stage}} {{reason}}",
                    ),
                    stacked=True,
                    least=0,
                ),
                lines(
                    "Queues",
                    "What waits between two steps of a stage. Tiles at 0: the training waits for "
                    "the disk. Images that pile up: encoding is too slow.",
                    "short",
                    Query(
                        f"max by (run, stage, queue) (hdgan_stage_queue_depth{{{STAGE}}})",
                        "{{stage}} {{queue}}",
                    ),
                    least=0,
                ),
                rows(
                    "Processes",
                    "Work that is done and expected by each process at work, and its age.",
                    (
                        Column(
                            "Done",
                            f"max by (run, stage, pod, unit) (hdgan_stage_work_done{{{STAGE}}})",
                            "short",
                        ),
                        Column(
                            "Expected",
                            "max by (run, stage, pod, unit) (hdgan_stage_work_expected"
                            f"{{{STAGE}}})",
                            "short",
                        ),
                        Column(
                            "Runs for",
                            "time() - max by (run, stage, pod) (hdgan_stage_start_time_seconds"
                            f"{{{STAGE}}})",
                            "s",
                        ),
                        Column(
                            "Processes",
                            f"count by (run, stage, pod, device) (hdgan_stage_info{{{STAGE}}})",
                            "short",
                        ),
                    ),
                    {
                        "run": "Run",
                        "stage": "Stage",
                        "pod": "Pod",
                        "device": "Device",
                        "unit": "Unit",
                    },
                    width=12,
                ),
            ),
        ),
    ),
)
