"""Training: of the generator, and of the classifier."""

from __future__ import annotations

from typing import Final

from chart.dashboards.board import Board, Row, Variable
from chart.dashboards.limits import THRESHOLDS
from chart.dashboards.panels import Query, heat, lines, number, steps

STAGE: Final = 'namespace=~"$namespace", run=~"$run"'
RATE: Final = "[$__rate_interval]"
BUCKETS: Final = f"hdgan_training_step_seconds_bucket{{{STAGE}}}{RATE}"


def _each(series: str, *labels: str) -> str:
    return f"max by ({', '.join(('run', *labels))}) ({series}{{{STAGE}}})"


def _rate(series: str) -> str:
    return f"sum by (run) (rate({series}{{{STAGE}}}{RATE}))"


TRAINING: Final = Board(
    name="training",
    title="hdgan / Training",
    words="Training of generators and classifiers: whether it goes well, and how fast it is.",
    since="12h",
    variables=(
        Variable("namespace", "Namespace", "label_values(hdgan_stage_info, namespace)"),
        Variable("run", "Run", 'label_values(hdgan_stage_info{namespace=~"$namespace"}, run)'),
    ),
    rows=(
        Row(
            "Now",
            (
                number(
                    "Real images shown",
                    "To the discriminator, by earlier attempts too. 1000 of them are one kimg.",
                    "short",
                    Query(_each("hdgan_training_images_total"), "{{run}}"),
                ),
                number(
                    "Images per second",
                    "Real images shown to the discriminator.",
                    "cps",
                    Query(_rate("hdgan_training_images_total"), "{{run}}"),
                    decimals=1,
                ),
                number(
                    "KID",
                    "Distance of generated images to held-out tiles when it was last measured; "
                    "lower is nearer.",
                    "short",
                    Query(_each("hdgan_training_kid"), "{{run}}"),
                    decimals=4,
                ),
                number(
                    "KID above its best",
                    "1 is the best so far. HdganTrainingKidRising begins at "
                    f"{THRESHOLDS['kidFactor']}.",
                    "short",
                    Query(
                        f"{_each('hdgan_training_kid')} / {_each('hdgan_training_best_kid')}",
                        "{{run}}",
                    ),
                    decimals=2,
                    limits=steps("green", (THRESHOLDS["kidFactor"], "orange"), (3, "red")),
                ),
                number(
                    "Waiting for tiles",
                    "Share of the time in which the training waits for tiles. Above a tenth, more "
                    "processors or a faster disk would make it faster.",
                    "percentunit",
                    Query(_rate("hdgan_training_tile_wait_seconds_total"), "{{run}}"),
                    decimals=1,
                    limits=steps("green", (0.1, "orange"), (0.3, "red")),
                ),
                number(
                    "Updates left out",
                    "In the hour before, because a gradient was not finite.",
                    "short",
                    Query(
                        "sum by (run) (increase(hdgan_training_skipped_updates_total"
                        f"{{{STAGE}}}[1h]))",
                        "{{run}}",
                    ),
                    decimals=0,
                    limits=steps("green", (1, "orange"), (THRESHOLDS["skippedUpdates"], "red")),
                ),
            ),
        ),
        Row(
            "The generator",
            (
                lines(
                    "Losses",
                    "By term. They do not fall as a classifier's do: two networks hold each other. "
                    "What matters is that they stay where they are; a gap is a loss that was not "
                    "finite.",
                    "short",
                    Query(_each("hdgan_training_loss", "term"), "{{run}} {{term}}"),
                ),
                lines(
                    "KID",
                    "Kernel inception distance to held-out tiles, and the best of this training.",
                    "short",
                    Query(_each("hdgan_training_kid"), "{{run}}"),
                    Query(_each("hdgan_training_best_kid"), "{{run}} best"),
                ),
                lines(
                    "Augmentation probability",
                    "p of adaptive augmentation. It grows while the discriminator learns its tiles "
                    "by heart; at 1 there is no more to give (HdganTrainingAugmentationAtBound "
                    "begins at the dashed line).",
                    "percentunit",
                    Query(_each("hdgan_training_ada_probability"), "{{run}}"),
                    least=0,
                    most=1,
                    limits=steps("green", (THRESHOLDS["adaProbability"], "red")),
                ),
                lines(
                    "Sign of D on real images",
                    "r_t: adaptive augmentation holds it at its target, 0.6. Near 1, the "
                    "discriminator knows every real image.",
                    "short",
                    Query(_each("hdgan_training_real_sign"), "{{run}}"),
                    least=-1,
                    most=1,
                    limits=steps("green", (0.6, "orange"), (0.9, "red")),
                ),
            ),
        ),
        Row(
            "Speed",
            (
                heat(
                    "Time of a step",
                    "How many steps took how long. Two bands are usual: the penalties are not in "
                    "every step.",
                    "s",
                    f"sum by (le) (increase({BUCKETS}))",
                ),
                lines(
                    "Time of a step, quantiles",
                    "From tiles that are there to weights that are updated.",
                    "s",
                    *(
                        Query(
                            f"histogram_quantile({share}, sum by (run, le) (rate({BUCKETS})))",
                            f"{{{{run}}}} {name}",
                        )
                        for share, name in (("0.5", "half"), ("0.9", "90 %"), ("0.99", "99 %"))
                    ),
                    least=0,
                ),
                lines(
                    "Real images per second",
                    "Shown to the discriminator.",
                    "cps",
                    Query(_rate("hdgan_training_images_total"), "{{run}}"),
                    least=0,
                ),
                lines(
                    "Waiting for tiles",
                    "Share of the time in which the training waits for tiles.",
                    "percentunit",
                    Query(_rate("hdgan_training_tile_wait_seconds_total"), "{{run}}"),
                    least=0,
                    most=1,
                ),
            ),
        ),
        Row(
            "The classifier",
            (
                lines(
                    "Cross-entropy",
                    "Of the last epoch on the training pixels. It starts anew with each member of "
                    "the ensemble.",
                    "short",
                    Query(_each("hdgan_classifier_loss"), "{{run}}"),
                    least=0,
                ),
                lines(
                    "Macro Dice on the val images",
                    "After the last epoch. If it falls while the loss falls, the member over-fits.",
                    "percentunit",
                    Query(_each("hdgan_classifier_val_macro_dice_ratio"), "{{run}}"),
                    least=0,
                    most=1,
                ),
            ),
        ),
    ),
)
