"""The classes of a run as other labelling tools take them: CVAT's labels, Label Studio's page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from xml.sax.saxutils import quoteattr

from hdgan.core.run import ClassConfig


def cvat_labels(classes: Sequence[ClassConfig]) -> bytes:
    """What CVAT's label constructor takes under "Raw"."""
    labels = [{"name": entry.name, "color": entry.color, "attributes": []} for entry in classes]
    return (json.dumps(labels, indent=2, ensure_ascii=False) + "\n").encode()


def label_studio_page(classes: Sequence[ClassConfig]) -> bytes:
    """A labelling configuration of Label Studio: brush and polygons over one picture."""

    def labels(tag: str, name: str) -> list[str]:
        entries = [
            f"    <Label value={quoteattr(entry.name)} background={quoteattr(entry.color)}/>"
            for entry in classes
        ]
        return [f'  <{tag} name="{name}" toName="image">', *entries, f"  </{tag}>"]

    lines = [
        "<View>",
        '  <Image name="image" value="$image" zoom="true" zoomControl="true"/>',
        *labels("BrushLabels", "brush"),
        *labels("PolygonLabels", "polygon"),
        "</View>",
    ]
    return ("\n".join(lines) + "\n").encode()
