"""Every metric there is, in one place: code that fills one takes it from here, and rules,
dashboards and `docs/metrics.md` are checked against it.

Names follow https://prometheus.io/docs/practices/naming/: base units, `_total` for counters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["counter", "gauge", "histogram"]
Place = Literal["stage", "run", "dataset", "controller"]
"""Who serves it. stage: the process of a stage. run, dataset: the controller, and `hdgan run
--metrics-port`. controller: the controller alone."""

STAGE: Final = ("run", "stage")
RUN: Final = ("run_namespace", "run", "dataset")
"""`run_namespace`, not `namespace`: Prometheus gives every series of a target the target's own
namespace. Empty for runs of the local runner."""
DATASET: Final = ("run_namespace", "store", "dataset")


@dataclass(frozen=True)
class Metric:
    """One family of series."""

    name: str
    kind: Kind
    help: str
    places: tuple[Place, ...]
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    """Upper limits of a histogram's buckets, +Inf left out."""

    @property
    def series(self) -> tuple[str, ...]:
        """Names of its series as queries write them."""
        if self.kind == "histogram":
            return tuple(f"{self.name}_{end}" for end in ("bucket", "sum", "count"))
        return (self.name,)


ALL: list[Metric] = []


def _metric(
    name: str,
    kind: Kind,
    help: str,
    *places: Place,
    labels: tuple[str, ...] = (),
    buckets: tuple[float, ...] = (),
) -> Metric:
    made = Metric(name, kind, help, places, labels, buckets)
    ALL.append(made)
    return made


# A stage at work

STAGE_INFO = _metric(
    "hdgan_stage_info",
    "gauge",
    "1 while this process makes the artifact with this key.",
    "stage",
    labels=(*STAGE, "key", "device"),
)
STAGE_STARTED = _metric(
    "hdgan_stage_start_time_seconds",
    "gauge",
    "When this process began, in seconds since 1970.",
    "stage",
    labels=STAGE,
)
STAGE_PROGRESS = _metric(
    "hdgan_stage_progress_ratio",
    "gauge",
    "Done of the work at hand, 0 to 1. A stage may have several pieces of work, one after another.",
    "stage",
    labels=STAGE,
)
STAGE_LAST_PROGRESS = _metric(
    "hdgan_stage_last_progress_timestamp_seconds",
    "gauge",
    "When the work got further the last time (until it first does, when the process began), in"
    " seconds since 1970.",
    "stage",
    labels=STAGE,
)
STAGE_DONE = _metric(
    "hdgan_stage_work_done",
    "gauge",
    "Done of the work at hand, in `unit`, by earlier attempts too.",
    "stage",
    labels=(*STAGE, "unit"),
)
STAGE_EXPECTED = _metric(
    "hdgan_stage_work_expected",
    "gauge",
    "All of the work at hand, in `unit`; absent while nobody knows.",
    "stage",
    labels=(*STAGE, "unit"),
)
STAGE_WORK = _metric(
    "hdgan_stage_work_total",
    "counter",
    "Done by this process, in `unit`: its rate is the throughput.",
    "stage",
    labels=(*STAGE, "unit"),
)
STAGE_QUEUE = _metric(
    "hdgan_stage_queue_depth",
    "gauge",
    "What waits within a stage: `tiles` decoded ahead of training, `slides` still to be cut.",
    "stage",
    labels=(*STAGE, "queue"),
)
STAGE_REJECTS = _metric(
    "hdgan_stage_rejects_total",
    "counter",
    "Tiles the tiler and images the synthesizer has left out, by reason.",
    "stage",
    labels=(*STAGE, "reason"),
)
SCRATCH_FREE = _metric(
    "hdgan_scratch_free_bytes",
    "gauge",
    "Free for us on the disk of scratch.",
    "stage",
    labels=STAGE,
)
SCRATCH_USED = _metric(
    "hdgan_scratch_used_bytes",
    "gauge",
    "Used on the disk of scratch, by whoever.",
    "stage",
    labels=STAGE,
)

# Training

TRAINING_IMAGES = _metric(
    "hdgan_training_images_total",
    "counter",
    "Real images the discriminator has been shown, by earlier attempts too.",
    "stage",
    labels=STAGE,
)
TRAINING_STEP = _metric(
    "hdgan_training_step_seconds",
    "histogram",
    "Time of a training step, from tiles that are there to weights that are updated.",
    "stage",
    labels=STAGE,
    buckets=(0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0),
)
TRAINING_WAIT = _metric(
    "hdgan_training_tile_wait_seconds_total",
    "counter",
    "Time the training has waited for tiles.",
    "stage",
    labels=STAGE,
)
TRAINING_LOSS = _metric(
    "hdgan_training_loss",
    "gauge",
    "Loss of a network or penalty since the last report, by `term`; NaN where it was not finite.",
    "stage",
    labels=(*STAGE, "term"),
)
TRAINING_ADA = _metric(
    "hdgan_training_ada_probability",
    "gauge",
    "Probability p of adaptive augmentation, 0 to 1.",
    "stage",
    labels=STAGE,
)
TRAINING_SIGN = _metric(
    "hdgan_training_real_sign",
    "gauge",
    "Mean sign of the discriminator's output on real images, -1 to 1: r_t of Karras et al. 2020,"
    " which adaptive augmentation keeps at its target.",
    "stage",
    labels=STAGE,
)
TRAINING_KID = _metric(
    "hdgan_training_kid",
    "gauge",
    "Kernel inception distance to held-out tiles when it was last measured.",
    "stage",
    labels=STAGE,
)
TRAINING_BEST_KID = _metric(
    "hdgan_training_best_kid",
    "gauge",
    "Lowest of the kernel inception distances of this training.",
    "stage",
    labels=STAGE,
)
TRAINING_SKIPPED = _metric(
    "hdgan_training_skipped_updates_total",
    "counter",
    "Updates left out because a gradient was not finite.",
    "stage",
    labels=STAGE,
)
CLASSIFIER_LOSS = _metric(
    "hdgan_classifier_loss",
    "gauge",
    "Cross-entropy of the last epoch on the training pixels.",
    "stage",
    labels=STAGE,
)
CLASSIFIER_DICE = _metric(
    "hdgan_classifier_val_macro_dice_ratio",
    "gauge",
    "Macro Dice on the val images after the last epoch, 0 to 1.",
    "stage",
    labels=STAGE,
)

# Requests to the store

STORE_REQUESTS = _metric(
    "hdgan_store_requests_total",
    "counter",
    "Requests to the store: those of S3's API, or operations on files. `outcome`: ok, missing,"
    " refused (4xx), failed (5xx), unanswered.",
    "stage",
    "controller",
    labels=("operation", "outcome"),
)
STORE_SECONDS = _metric(
    "hdgan_store_request_seconds",
    "histogram",
    "Time to the answer, without the body of what is read.",
    "stage",
    "controller",
    labels=("operation",),
    buckets=(0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)
STORE_RETRIES = _metric(
    "hdgan_store_retries_total",
    "counter",
    "Requests that were made once more after one that failed.",
    "stage",
    "controller",
)
STORE_BYTES = _metric(
    "hdgan_store_transferred_bytes_total",
    "counter",
    "Bytes read from and written to the store.",
    "stage",
    "controller",
    labels=("direction",),
)

# A run: live ones, and the last few of each dataset

RUN_PHASE = _metric(
    "hdgan_run_phase",
    "gauge",
    "1 for the phase the run is in, 0 for all others.",
    "run",
    labels=(*RUN, "phase"),
)
RUN_FAILURE = _metric(
    "hdgan_run_failure_info",
    "gauge",
    "1 for why a run is Failed: the stage and the reason.",
    "run",
    labels=(*RUN, "stage", "reason"),
)
RUN_STARTED = _metric(
    "hdgan_run_start_time_seconds",
    "gauge",
    "When the run began, in seconds since 1970.",
    "run",
    labels=RUN,
)
RUN_FINISHED = _metric(
    "hdgan_run_finish_time_seconds",
    "gauge",
    "When the run ended, in seconds since 1970; absent before.",
    "run",
    labels=RUN,
)
RUN_AWAITING = _metric(
    "hdgan_run_awaiting_annotation_since_timestamp_seconds",
    "gauge",
    "Since when the run waits for annotations, in seconds since 1970; absent while it does not.",
    "run",
    labels=RUN,
)
RUN_STAGE_STATE = _metric(
    "hdgan_run_stage_state",
    "gauge",
    "1 for where the stage stands: done, running, ready, waiting, skipped, awaiting, failed.",
    "run",
    labels=(*RUN, "stage", "state"),
)
RUN_STAGE_SECONDS = _metric(
    "hdgan_run_stage_duration_seconds",
    "gauge",
    "How long all attempts at the stage's artifact, and all its parts, have worked, whichever run"
    " had it made.",
    "run",
    labels=(*RUN, "stage"),
)
RUN_STAGE_DEVICE = _metric(
    "hdgan_run_stage_device_seconds",
    "gauge",
    "What that cost, by device: the duration of each times its number of processes; absent where"
    " another run has paid for it.",
    "run",
    labels=(*RUN, "stage", "device"),
)
RUN_STAGE_ATTEMPTS = _metric(
    "hdgan_run_stage_attempts",
    "gauge",
    "Attempts at a stage so far.",
    "run",
    labels=(*RUN, "stage"),
)
RUN_DICE = _metric(
    "hdgan_run_dice_ratio",
    "gauge",
    "Dice of a class on the test images, 0 to 1.",
    "run",
    labels=(*RUN, "class"),
)
RUN_IOU = _metric(
    "hdgan_run_iou_ratio",
    "gauge",
    "Intersection over union of a class on the test images, 0 to 1.",
    "run",
    labels=(*RUN, "class"),
)
RUN_MACRO_DICE = _metric(
    "hdgan_run_macro_dice_ratio",
    "gauge",
    "Mean Dice over the classes on the test images, 0 to 1.",
    "run",
    labels=RUN,
)
RUN_ECE = _metric(
    "hdgan_run_calibration_error_ratio",
    "gauge",
    "Expected calibration error (15 bins) on the test images, 0 to 1.",
    "run",
    labels=RUN,
)
RUN_KID = _metric(
    "hdgan_run_kid",
    "gauge",
    "Kernel inception distance of the generator to held-out tiles.",
    "run",
    labels=RUN,
)
RUN_DRIFT = _metric(
    "hdgan_run_drift_kid",
    "gauge",
    "Kernel inception distance of the tiles to a pinned generator's samples.",
    "run",
    labels=RUN,
)
RUN_PAIRS = _metric(
    "hdgan_run_pairs",
    "gauge",
    "Pairs of image and mask in the run's dataset.",
    "run",
    labels=RUN,
)
RUN_GATE = _metric(
    "hdgan_run_gate_passed",
    "gauge",
    "1 if a gate that is set let the dataset through, 0 if it did not; absent before.",
    "run",
    labels=(*RUN, "gate"),
)

# A dataset: from latest.json, so that it outlives runs and restarts

DATASET_RELEASED = _metric(
    "hdgan_dataset_release_timestamp_seconds",
    "gauge",
    "When the dataset's latest release was made, in seconds since 1970.",
    "dataset",
    labels=DATASET,
)
DATASET_CONFIRMED = _metric(
    "hdgan_dataset_last_success_timestamp_seconds",
    "gauge",
    "When a run last ended well, Released or Unchanged, as far as its run or the latest release"
    " still tells; in seconds since 1970.",
    "dataset",
    labels=DATASET,
)
DATASET_DICE = _metric(
    "hdgan_dataset_macro_dice_ratio",
    "gauge",
    "Macro Dice of the dataset's latest release, 0 to 1.",
    "dataset",
    labels=DATASET,
)

# The controller

CONTROLLER_LEADING = _metric(
    "hdgan_controller_leading", "gauge", "1 while this replica leads.", "controller"
)
CONTROLLER_SEEN = _metric(
    "hdgan_controller_namespace_seen",
    "gauge",
    "1 while the namespace's objects can be listed and watched.",
    "controller",
    labels=("run_namespace",),
)
CONTROLLER_JOBS = _metric(
    "hdgan_controller_jobs",
    "gauge",
    "Jobs that are not over by state: pending, running (one of its pods is), suspended.",
    "controller",
    labels=("run_namespace", "state"),
)
CONTROLLER_RUNS = _metric(
    "hdgan_controller_runs",
    "gauge",
    "Runs by phase.",
    "controller",
    labels=("run_namespace", "phase"),
)
CONTROLLER_ENDS = _metric(
    "hdgan_controller_attempts_ended_total",
    "counter",
    "Attempts at stages that ended, by how: Succeeded, Suspended, or the reason in the run's"
    " status. One that several runs share counts for each of them.",
    "controller",
    labels=("run_namespace", "stage", "reason"),
)
CONTROLLER_RECONCILES = _metric(
    "hdgan_controller_reconciles_total",
    "counter",
    "Looks at a run by outcome: ok, conflict, error.",
    "controller",
    labels=("outcome",),
)
CONTROLLER_RECONCILE = _metric(
    "hdgan_controller_reconcile_seconds",
    "histogram",
    "Time of one look at a run, with what was done about it.",
    "controller",
    buckets=(0.002, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0),
)
CONTROLLER_QUEUE = _metric(
    "hdgan_controller_queue_depth", "gauge", "Runs that are due to be looked at.", "controller"
)
CONTROLLER_STORE = _metric(
    "hdgan_controller_store_reachable",
    "gauge",
    "1 if the store answered when it was last looked at for these series, 0 if it did not.",
    "controller",
    labels=("run_namespace", "store"),
)

BY_NAME: Final = {one.name: one for one in ALL}
BY_SERIES: Final = {series: one for one in ALL for series in one.series}
