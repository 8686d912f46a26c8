"""What `scores.json` of a classifier says of the test images: the one reader of its numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from hdgan.core.gates import finite

MOST_CLASSES: Final = 254
"""More than masks can hold; a document that names more is not believed."""


@dataclass(frozen=True)
class ImageScores:
    """Scores on the test images; None where there is no finite number."""

    macro_dice: float | None = None
    macro_iou: float | None = None
    ece: float | None = None
    class_dice: Mapping[str, float | None] | None = None
    """By class; None where the document has no such table."""
    class_iou: Mapping[str, float | None] | None = None


def scores_on_test_images(document: Any) -> ImageScores:
    """The scores a document holds, of whatever form it is: what is not there is None."""
    test = within(document, "test")
    return ImageScores(
        macro_dice=finite(within(test, "dice", "macro")),
        macro_iou=finite(within(test, "iou", "macro")),
        ece=finite(within(test, "ece")),
        class_dice=_by_class(within(test, "dice", "perClass")),
        class_iou=_by_class(within(test, "iou", "perClass")),
    )


def within(document: Any, *names: str) -> Any:
    """What a JSON document has under names inside one another; None where it has not."""
    for name in names:
        document = document.get(name) if isinstance(document, dict) else None
    return document


def _by_class(found: Any) -> dict[str, float | None] | None:
    if not isinstance(found, dict) or len(found) > MOST_CLASSES:
        return None
    return {str(name): finite(value) for name, value in found.items()}
