"""Candidates out: the pictures an expert is to label, with everything needed to do so."""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hdgan.core.artifact import Artifact
from hdgan.core.atomic_file import explain_os_error
from hdgan.core.disk_space import require_space
from hdgan.core.errors import RequestError
from hdgan.core.json_documents import JsonError, parse_object
from hdgan.core.masks import UNLABELLED, decode_mask, encode_mask
from hdgan.core.run import AnnotationsConfig, ClassConfig
from hdgan.core.well_formed import well_formed
from hdgan.desk import qupath_project, tool_settings
from hdgan.desk.candidates import Candidates, read_json
from hdgan.desk.contact_sheet import Thumbnail, contact_sheet, thumbnail, thumbnail_side
from hdgan.desk.export_folder import ExportFolder
from hdgan.desk.export_guide import export_guide
from hdgan.desk.export_layout import (
    CLASSES_FILE,
    CONTACT_SHEET,
    CVAT_FILE,
    GUIDE_FILE,
    LABEL_STUDIO_FILE,
    LABELS_FOLDER,
    PROJECT_FILE,
    SPLIT_FILE,
    earlier_place,
    labels_place,
    picture_name,
)
from hdgan.desk.label_files import label_file
from hdgan.desk.outlines import outlines
from hdgan.desk.pictures import open_rgb
from hdgan.desk.png_text import with_candidate_id
from hdgan.desk.qupath_project import ProjectImage
from hdgan.desk.splits import Split

_BESIDE_EACH = 256 << 10
"""Bytes beside each picture and a quarter of its own: its mask and shapes of before, its place in
the contact sheet."""


@dataclass(frozen=True)
class Exported:
    """What an export did."""

    count: int
    """Pictures in the folder that are to be labelled."""
    labelled: int
    """How many of them have labels of before."""
    kept: tuple[str, ...]
    """Files that a person has changed: they were not written again."""


def with_count(config: AnnotationsConfig, count: int | None) -> AnnotationsConfig:
    """The counts of `config`, with as many more to train as make `count` in all (None: no more)."""
    if count is None:
        return config
    needed = config.train + config.val + config.test
    if count < needed:
        raise RequestError(
            f"--count {count}: the run needs {needed} labelled pictures ({config.train} train, "
            f"{config.val} val, {config.test} test): give that many or more"
        )
    return config.model_copy(update={"train": config.train + count - needed})


def export_candidates(
    candidates: Candidates,
    assigned: Mapping[str, Split],
    classes: Sequence[ClassConfig],
    folder: Path,
    *,
    run_name: str,
    mpp: float,
    before: Artifact | None = None,
) -> Exported:
    """Write the pictures in `assigned` and everything around them to `folder`.

    run_name  what the contact sheet is called
    mpp       size of a pixel in micrometres
    before    the annotations so far: their masks are where labelling goes on
    Again into the same folder: what is missing is added, what a person has changed stays.
    RequestError when the folder holds something else, whose labels would be refused or mixed up;
    StoreError when it cannot be written, NoSpace when its disk is too full.
    """
    folder = folder.absolute()
    try:
        target = ExportFolder.open(folder, candidates.artifact.content_digest)
        if target.fresh:
            _refuse_others(folder, {picture_name(*item) for item in assigned.items()})
        sizes = {one: candidates.png_size(one) for one in assigned}
        missing = [sizes[one] for one, split in assigned.items() if not _exists(folder, one, split)]
        room = sum(size + size // 4 + _BESIDE_EACH for size in missing)
        require_space(folder, room, "the export")
        target.save()
        images, thumbnails = _write_pictures(target, candidates, assigned)
        labelled = _write_labels(target, images, classes, before)
        _write_project(target, images, classes, mpp)
        size = images[0]
        target.put(CLASSES_FILE, classes_json(classes).encode())
        target.put(SPLIT_FILE, _split_csv(assigned).encode())
        target.put(CVAT_FILE, tool_settings.cvat_labels(classes))
        target.put(LABEL_STUDIO_FILE, tool_settings.label_studio_page(classes))
        target.put(CONTACT_SHEET, contact_sheet(run_name, thumbnails, classes, mpp))
        guide = export_guide(
            assigned.values(),
            classes,
            size=(size.width, size.height),
            mpp=mpp,
            digits=len(size.identity),
            folder=folder.name,
            ranked=candidates.ranking is not None,
            labelled=labelled > 0,
        )
        target.put(GUIDE_FILE, guide.encode())
    except OSError as error:
        raise explain_os_error(error, "write", error.filename or folder) from None
    kept = [place for place in target.kept if not place.startswith(f"{LABELS_FOLDER}/")]
    return Exported(len(assigned), labelled, tuple(kept))


def _exists(folder: Path, identity: str, split: Split) -> bool:
    return (folder / picture_name(identity, split)).exists()


def _refuse_others(folder: Path, wanted: set[str]) -> None:
    """RequestError when a folder that is no export yet holds pictures or a project."""
    others = sorted(path.name for path in folder.glob("*.png") if path.name not in wanted)
    if "contact-sheet.png" in others:  # of the exports before contact sheets were pages
        others.remove("contact-sheet.png")
    others += [path.name for path in folder.glob("*.qpproj")]
    if others:
        raise RequestError(
            f"{folder}: holds other files ({', '.join(others[:3])}"
            f"{', ...' if len(others) > 3 else ''}): choose an empty folder"
        )


def _write_pictures(
    target: ExportFolder, candidates: Candidates, assigned: Mapping[str, Split]
) -> tuple[list[ProjectImage], list[Thumbnail]]:
    """The PNGs, one at a time in memory."""
    images, thumbnails = [], []
    side = thumbnail_side(len(assigned))
    for identity, split in assigned.items():
        png = candidates.png(identity)
        target.put_new(picture_name(identity, split), with_candidate_id(png, identity))
        rgb = open_rgb(png, f"candidate {identity}")
        height, width = rgb.shape[:2]
        images.append(ProjectImage(identity, split, width, height))
        thumbnails.append(thumbnail(identity, split, rgb, side))
    return images, thumbnails


def _write_labels(
    target: ExportFolder,
    images: Sequence[ProjectImage],
    classes: Sequence[ClassConfig],
    before: Artifact | None,
) -> int:
    """The GeoJSON of each picture and the mask it had; returns how many had one."""
    known = set() if before is None else _ids(before)
    labelled = 0
    for image in images:
        named = (image.identity, image.split)
        picture = picture_name(*named)
        if before is None or image.identity not in known:
            target.put(labels_place(*named), label_file(image.identity, picture, classes))
            continue
        labelled += 1
        mask = _earlier_mask(before, image, classes)
        png = with_candidate_id(encode_mask(mask, classes), image.identity)
        place = labels_place(*named)
        if target.read(earlier_place(*named)) == png and target.read(place) is not None:
            continue  # The shapes of this very mask were written first.
        if target.untouched(place):
            parts = outlines(mask)
            if parts is None:
                # Too intricate for shapes, so that the mask itself is what is there already.
                target.put(f"{LABELS_FOLDER}/{Path(earlier_place(*named)).name}", png)
            target.put(place, label_file(image.identity, picture, classes, parts or []))
        target.put(earlier_place(*named), png)
    return labelled


def _ids(annotations: Artifact) -> set[str]:
    with well_formed(annotations):
        return {str(image["id"]) for image in read_json(annotations, "annotations.json")["images"]}


def _earlier_mask(
    annotations: Artifact, image: ProjectImage, classes: Sequence[ClassConfig]
) -> npt.NDArray[np.uint8]:
    """The mask of a picture in the classes of the run, which are found by name; a class that it
    has not any more becomes unlabelled."""
    stored = decode_mask(
        annotations.read(f"masks/{image.identity}.png"),
        shape=(image.height, image.width),
        source=annotations.uri(f"masks/{image.identity}.png"),
    )
    table = np.full(256, UNLABELLED, dtype=np.uint8)
    indices = {entry.name: index for index, entry in enumerate(classes)}
    with well_formed(annotations):
        for value, entry in enumerate(read_json(annotations, "annotations.json")["classes"]):
            table[value] = indices.get(str(entry["name"]), UNLABELLED)
    mask: npt.NDArray[np.uint8] = table[stored]
    return mask


def _write_project(
    target: ExportFolder, images: Sequence[ProjectImage], classes: Sequence[ClassConfig], mpp: float
) -> None:
    """The QuPath project, or what it lacks: QuPath writes into its files as well."""
    uri = target.path.as_uri()
    existing = target.read(PROJECT_FILE)
    if existing is not None and target.untouched(PROJECT_FILE) and _uri(existing) != uri:
        existing = None  # moved before anybody has opened it
    now = time.time_ns() // 1_000_000
    try:
        project = qupath_project.project_file(images, mpp, uri, now, existing)
    except RequestError as error:
        raise RequestError(f"{target.path / PROJECT_FILE}: {error}") from None
    if project != existing:
        target.replace(PROJECT_FILE, project)
    shown = target.read(qupath_project.CLASSES_PLACE)
    merged = qupath_project.classes_file(classes, shown)
    if merged != shown:
        target.replace(qupath_project.CLASSES_PLACE, merged)
    for name in qupath_project.SCRIPTS:
        target.put(f"scripts/{name}", qupath_project.script(name))


def _uri(project: bytes) -> str:
    """The folder that a project says it is in."""
    try:
        return str(parse_object(project).get("uri")).rpartition("/")[0]
    except JsonError:
        return ""


def classes_json(classes: Sequence[ClassConfig]) -> str:
    """classes.json: a list of name and colour, index = value in masks."""
    entries = [{"name": entry.name, "color": entry.color} for entry in classes]
    return json.dumps(entries, indent=2) + "\n"


def _split_csv(assigned: Mapping[str, Split]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["file", "id", "split"])
    for identity, split in assigned.items():
        writer.writerow([picture_name(identity, split), identity, split])
    return buffer.getvalue()
