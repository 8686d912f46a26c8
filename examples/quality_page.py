"""docs/quality.md from the figures in quality.json: a pure function of them."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

Entry = Mapping[str, Any]

HEAD = """\
# Quality

How well the pixel classifier finds again, on generated images it was not trained on, what an
annotator labelled there: macro Dice, by how many of the generator's blocks it sees, by ensemble and
single network, and beside the same classifier on colour alone. **The annotator is a fixed rule
about stain (`examples/standin_annotator.py`), not a pathologist**: the figures compare ways to use
the generator and say nothing about pathology.

Written by `make quality`, with more figures in [quality.json](quality.json): do not edit.

## How it is measured

Each generator is used as it lies in `examples/`, without further training. It draws {total}
candidates (truncation 0.7), and the rule labels all of them: {train} train the classifier, {val}
decide when to stop, {test} only score. Training and validation are as many as in the paper, where
an expert labels; the paper tests on 16, but a rule labels for nothing. Extractor and classifier are
the stages that `hdgan run` starts, with their defaults: an ensemble of {members} networks on
float16 features. Candidates and masks are the same in every row of a table.

An interval is a 95 % bootstrap over test images; in a difference both sides see the same drawn
images. It holds what other test images would change, not what other training images, another
generator or another slide would. Boundary F is the boundary F-score at a tolerance of {tolerance:g}
um. A single member is a run with `classifier.members: 1`: the mean of {seeds} seeds, and in
brackets the lowest and the highest.
"""

TAIL = """\
## Do it again

    make quality                       # every generator that is shipped
    make quality GENERATOR=skin-64     # one of them; the others' figures stay

Store and scratch are in `demo/quality`; what is there already is not made again. No slide is
needed.

## Limits

- The labels are a rule's. It thresholds blurred colour, so the blurred-RGB baseline sees nearly
  what the rule sees and does well by construction: it shows how easy these labels are, and is no
  argument against the generator's features.
- The rule looks at near pixels alone, to which coarse blocks have little to add. How many blocks
  an expert's labels need, this cannot tell.
- Labels and pictures both come from the generator: how well the classifier does on real tiles is
  not measured.
- One slide of one patient, small generators, one draw of training images.
"""

NAMES = {
    "rgb": "RGB",
    "rgbBlurred": "RGB and blurred RGB",
    "majority": "the majority class",
}


def render(document: Entry) -> str:
    """The page for a quality.json with at least one generator."""
    generators: Mapping[str, Entry] = document["generators"]
    first = next(iter(generators.values()))
    head = HEAD.format(
        total=sum(first["images"].values()),
        **first["images"],
        members=first["members"],
        seeds=len(first["singleSeeds"]),
        tolerance=first["boundaryToleranceUm"],
    )
    sections = [_section(name, entry) for name, entry in generators.items()]
    return "\n".join([head, *sections, TAIL])


def _section(name: str, entry: Entry) -> str:
    size, paper = entry["tileSize"], entry["paperBlocks"]
    parts = [
        f"## {name}: {size} x {size} px at {entry['mpp']:g} um/px\n",
        _notes(entry),
        f"By the number of last blocks (and their resolutions); {paper} is the paper's choice:\n",
        _blocks(entry),
        f"The same classifier on other inputs, and by class ({paper} blocks):\n",
        _baselines(entry),
        f"The ensemble's masks ({paper} blocks) after `synthesizer.smoothing: majority`. The rule"
        " smooths its own\noutlines, too, which favours the filter:\n",
        _smoothing(entry),
    ]
    return "\n".join(part for part in parts if part)


def _notes(entry: Entry) -> str:
    """What is particular to this generator."""
    notes = [f"Trained for {entry['kimg']:g} kimg.", entry["remark"]]
    if entry["labelFactor"] > 1:
        notes.append(
            f"The rule's lengths are pixels of 2 um: it labels these pictures averaged down"
            f" {entry['labelFactor']} times, and its masks are enlarged again. The blurs of the"
            " blurred-RGB baseline are in pixels and do not grow with them."
        )
    if entry["epochsAsked"] is not None:
        notes.append(
            f"To save time the classifier has at most {entry['epochs']} epochs here"
            " (`classifier.epochs`); one is as many pixels as are labelled for training."
        )
    return textwrap.fill(" ".join(note for note in notes if note), 100) + "\n"


def _blocks(entry: Entry) -> str:
    rows = [
        [
            f"{row['blocks']} ({_resolutions(row['resolutions'])})",
            f"{row['channels']}",
            _score(row["ensemble"]),
            _difference(row["lessPaperBlocks"]),
            f"{row['single']['macroDice']:.3f} ({_range(row['single']['range'])})",
            _difference(row["ensembleLessSingle"]),
        ]
        for row in entry["blocks"]
    ]
    header = [
        "blocks (px)",
        "channels",
        f"ensemble of {entry['members']}",
        f"less that of {entry['paperBlocks']} blocks",
        "single member",
        "ensemble less single",
    ]
    return _table(header, rows)


def _baselines(entry: Entry) -> str:
    paper = next(row for row in entry["blocks"] if row["blocks"] == entry["paperBlocks"])
    rows = [("the generator's features", paper["ensemble"])]
    rows += [(NAMES[name], entry["baselines"][name]) for name in NAMES]
    classes = list(paper["ensemble"]["perClass"])
    return _table(
        ["", "macro Dice", *classes, "boundary F"],
        [
            [
                what,
                _score(scores),
                *(_number(scores["perClass"][one]) for one in classes),
                _number(scores["boundaryF"]),
            ]
            for what, scores in rows
        ],
    )


def _smoothing(entry: Entry) -> str:
    return _table(
        ["radius", "macro Dice", "less unsmoothed", "boundary F", "pixels changed"],
        [
            [
                f"{row['radiusUm']:g} um ({row['radiusPx']:g} px)" if row["radiusPx"] else "none",
                _number(row["macroDice"]),
                _difference(row["lessUnsmoothed"]),
                _number(row["boundaryF"]),
                f"{100 * row['changed']:.1f} %",
            ]
            for row in entry["smoothing"]
        ],
    )


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(cells) + " |\n" for cells in lines)


def _resolutions(found: Sequence[int]) -> str:
    return f"{found[0]}" if len(found) == 1 else f"{found[0]} - {found[-1]}"


def _score(scores: Entry) -> str:
    return f"{scores['macroDice']:.3f} ({_range(scores['interval95'])})"


def _difference(found: Entry | None) -> str:
    """Empty for a row that the others are compared with."""
    if found is None:
        return ""
    low, high = found["interval95"]
    return f"{found['value']:+.3f} ({low:+.3f} to {high:+.3f})"


def _range(pair: Sequence[float]) -> str:
    return f"{pair[0]:.3f} - {pair[1]:.3f}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
