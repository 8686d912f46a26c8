"""Lineage in the report: from one mask of the dataset back to the slides, each link checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hdgan.core.artifact import Artifact
from hdgan.core.pipeline import NodeStatus
from hdgan.desk.report_dataset import ShownPair
from hdgan.desk.report_text import counted, listed
from hdgan.desk.report_tiles import Slide

SLIDES_SHOWN = 50


@dataclass(frozen=True)
class Step:
    """One thing on the way back from a mask."""

    what: str
    text: str
    digests: list[tuple[str, str]]
    """What it is the digest of, and 64 hex digits."""
    link: str = ""
    """How the step before names this one."""
    broken: bool = False
    """Whether it names another one."""


@dataclass(frozen=True)
class Trail:
    """The way back from one pair that the page shows."""

    id: str
    shard: str
    steps: list[Step]
    slides: list[Slide] = field(default_factory=list)
    """Those whose tiles the generator was trained on."""
    more_slides: int = 0

    @property
    def whole(self) -> bool:
        return not any(step.broken for step in self.steps)


def trail(
    shown: ShownPair, found: Mapping[str, Artifact], tiles: Artifact | None, slides: Sequence[Slide]
) -> Trail:
    """From a pair's mask to the slides.

    found   the run's artifacts by stage, its dataset among them
    tiles   the artifact that the generator's tiles are, None if it is not there
    slides  of that artifact
    """
    dataset = found["dataset"]
    pair, document = shown.pair, shown.document
    stored = dataset.entry(pair.shard)
    indexed = str(pair.row.get("mask_sha256") or "")
    steps = [
        Step(
            "mask",
            f"{pair.id}.mask.png",
            [("its SHA-256", shown.mask_sha256 or indexed)],
            "not read for this page"
            if not shown.mask_sha256
            else "is the file that the index names"
            if shown.mask_sha256 == indexed
            else "is not the file that the index names",
            bool(shown.mask_sha256) and shown.mask_sha256 != indexed,
        ),
        Step("shard", pair.shard, [("its SHA-256", stored.sha256)], "named by the index"),
        Step(
            "dataset",
            _drawn(document),
            [("content", dataset.content_digest)],
            "the manifest names the shard",
        ),
        _step("classifier", "labelled the image", dataset, "ensemble", found.get("classifier")),
        _step("generator", "drew the image", dataset, "generator", found.get("gan-trainer")),
    ]
    classifier, annotations = found.get("classifier"), found.get("annotations")
    if classifier is not None:
        steps.append(
            _step("annotations", "taught the classifier", classifier, "annotations", annotations)
        )
        steps.append(
            _step("candidates", "were labelled", classifier, "candidates", found.get("candidates"))
        )
    generator = found.get("gan-trainer")
    if generator is not None:
        steps.append(_step("tiles", "trained the generator", generator, "tiles", tiles))
    used = [one for one in slides if one.accepted]
    return Trail(pair.id, pair.shard, steps, used[:SLIDES_SHOWN], max(0, len(used) - SLIDES_SHOWN))


def _drawn(document: Mapping[str, object]) -> str:
    names = ("stream", "seed", "index")
    said = [f"{name} {document[name]}" for name in names if name in document]
    return f"drawn as {', '.join(said)}" if said else ""


def _step(what: str, text: str, maker: Artifact, name: str, made: Artifact | None) -> Step:
    """A step to an input of the artifact before."""
    asked = maker.manifest.inputs.get(name, "")
    stage = maker.manifest.stage
    if made is None:
        return Step(what, text, [("content", asked)], f"named by the {stage}'s manifest; not here")
    if not asked:
        digests = [("content", made.content_digest)]
        return Step(what, text, digests, f"not named by the {stage}'s manifest", broken=True)
    if asked != made.content_digest:
        digests = [("asked for", asked), ("the run's", made.content_digest)]
        return Step(what, text, digests, f"the {stage} was made from another one", broken=True)
    return Step(
        what, text, [("content", asked)], f"named by the {stage}'s manifest, and is the run's"
    )


@dataclass(frozen=True)
class Made:
    """An artifact of the run and what it was made from."""

    stage: str
    state: str
    key: str
    digest: str
    size: str
    inputs: list[tuple[str, str]]
    """Name and content digest of each."""


def made(artifacts: Mapping[str, Artifact], statuses: Sequence[NodeStatus]) -> list[Made]:
    """One row per stage and gate in the order they run; what does not exist says why."""
    rows = []
    for status in statuses:
        artifact = artifacts.get(status.name)
        size = ""
        if artifact is not None:
            files = artifact.manifest.files
            size = f"{counted(len(files), 'file')}, {_bytes(sum(one.size for one in files))}"
        rows.append(
            Made(
                stage=status.name,
                state=status.state + (f": {status.reason}" if status.reason else ""),
                key=artifact.manifest.key if artifact else status.key or "",
                digest=artifact.content_digest if artifact else "",
                size=size,
                inputs=sorted(artifact.manifest.inputs.items()) if artifact else [],
            )
        )
    return rows


def _bytes(size: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def broken_links(found: Trail | None) -> str:
    """The steps of a trail whose link does not hold, in words; empty if all do."""
    if found is None:
        return ""
    return listed([step.what for step in found.steps if step.broken])
