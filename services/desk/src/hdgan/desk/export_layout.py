"""Names and places in the folder of an export: what is where, and which files are no labels."""

from __future__ import annotations

from hdgan.desk.splits import Split

CONTACT_SHEET = "contact-sheet.html"
CLASSES_FILE = "classes.json"
SPLIT_FILE = "split.csv"
GUIDE_FILE = "GUIDE.txt"
CVAT_FILE = "cvat-labels.json"
LABEL_STUDIO_FILE = "label-studio.xml"
PROJECT_FILE = "project.qpproj"
STATE_FILE = ".hdgan-export.json"

LABELS_FOLDER = "labels"
"""GeoJSON, one file for each picture: empty or with the earlier shapes at first, then what QuPath
or another tool writes there."""
EARLIER_FOLDER = "earlier"
"""The masks of the annotations before, to start corrections from."""

NO_LABELS = frozenset(
    {CLASSES_FILE, CVAT_FILE, LABEL_STUDIO_FILE, CONTACT_SHEET, "contact-sheet.png"}
)
"""Files of an export, this one's or an older one's, whose endings an import would otherwise
take."""


def picture_name(identity: str, split: Split) -> str:
    """Name of an exported picture."""
    return f"{split}-{identity}.png"


def labels_place(identity: str, split: Split) -> str:
    """Path of the GeoJSON of a picture, in the folder of the export."""
    return f"{LABELS_FOLDER}/{split}-{identity}.geojson"


def earlier_place(identity: str, split: Split) -> str:
    """Path of the mask that an earlier version has of a picture."""
    return f"{EARLIER_FOLDER}/{split}-{identity}.mask.png"
