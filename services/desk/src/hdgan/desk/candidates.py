"""The candidates of a run as the desk sees them: ids, pictures, and which are to be labelled."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from hdgan.core.artifact import Artifact
from hdgan.core.errors import InputMissing
from hdgan.core.run import AnnotationsConfig
from hdgan.core.well_formed import well_formed
from hdgan.desk.artifact_documents import read_json as read_json
from hdgan.desk.choosing import choose, read_ranking
from hdgan.desk.pictures import Rgb, open_rgb
from hdgan.desk.png_text import CANDIDATE_ID
from hdgan.desk.splits import SPLITS, Split, SplitCounts, assign_splits


@dataclass(frozen=True)
class Candidates:
    """Read side of a `candidates` artifact, and of what ranks them."""

    artifact: Artifact
    ranking: Artifact | None = None
    """The newest `ranking` or `reranking` of them; None: they are labelled as they were drawn."""

    @cached_property
    def document(self) -> dict[str, Any]:
        """candidates.json."""
        document = read_json(self.artifact, "candidates.json")
        if "images" not in document or "generator" not in document:
            raise InputMissing(f"{self.artifact.uri('candidates.json')}: lists no images")
        return document

    @property
    def generator(self) -> str:
        """Content digest of the generator that made them."""
        return str(self.document["generator"])

    @cached_property
    def ids(self) -> list[str]:
        """Ids in the order they were drawn."""
        with well_formed(self.artifact):
            ids = [str(image["id"]) for image in self.document["images"]]
            for one in ids:  # they become names of files
                if not CANDIDATE_ID.fullmatch(one):
                    raise ValueError(f"{one[:80]!r} is no candidate id")
            if len(set(ids)) < len(ids):
                raise ValueError("it lists a candidate twice")
            return ids

    def png(self, identity: str) -> bytes:
        """The stored picture of a candidate."""
        return self.artifact.read(f"images/{identity}.png")

    def png_size(self, identity: str) -> int:
        """Bytes of that picture."""
        return self.artifact.entry(f"images/{identity}.png").size

    def rgb(self, identity: str) -> Rgb:
        """The picture of a candidate, uint8 [H, W, 3]."""
        return open_rgb(self.png(identity), f"candidate {identity}")

    def assign(
        self, config: AnnotationsConfig, published: Mapping[str, Split] | None = None
    ) -> dict[str, Split]:
        """The images to label and their splits; those to train begin with what is labelled."""
        counts = SplitCounts(train=config.train, val=config.val, test=config.test)
        seed = f"{self.document.get('stream')}/{self.document.get('seed')}"
        return assign_splits(self.ids, counts, seed, published, self._rank)

    def _rank(self, labelled: Collection[str], held_out: Collection[str]) -> Sequence[str]:
        if self.ranking is None:
            return self.ids
        ranking = read_ranking(self.ranking, self.artifact)
        if list(ranking.ids) != self.ids:
            raise InputMissing(f"{self.ranking.uri('ranking.parquet')}: is of other candidates")
        return choose(ranking, labelled, held_out)


def published_splits(annotations: Artifact | None) -> dict[str, Split]:
    """The splits that annotations published so far have fixed; empty without any."""
    if annotations is None:
        return {}
    splits: dict[str, Split] = {}
    with well_formed(annotations):
        for image in read_json(annotations, "annotations.json")["images"]:
            for split in SPLITS:
                if image["split"] == split:
                    splits[str(image["id"])] = split
    return splits
