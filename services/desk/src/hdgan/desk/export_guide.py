"""The page of text in the folder of an export: how to label, for whoever does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from hdgan.core.run import ClassConfig
from hdgan.desk.splits import Split

_GUIDE = """\
What to label
=============

{count} generated pictures, {width} x {height} px at {mpp} um/px, one PNG each: {splits}.
They are drawn by a generator, not cut from a slide. Label what you see.
contact-sheet.html shows all of them, on screen and on paper. {order}

Classes (index, name, colour):
{classes}

In QuPath (0.4 or newer)
------------------------
1. Open project.qpproj. In a folder that was moved QuPath asks about its URIs: "Apply changes".
   Then once: Automate > Project scripts... > start-here, and Run.
2. Draw, set the class of each annotation, save (Ctrl+S).
3. Automate > Project scripts... > export-labels, and Run: it fills the folder labels/.

With any other tool
-------------------
  - GeoJSON: write the shapes into labels/<split>-<id>.geojson, in pixels, the class as
    properties.classification.name. Leave the properties of the file as they are.
  - A PNG mask of the same size, saved into this folder: 8-bit indexed or grey with the class
    index as value, or RGB with exactly the colours above (no anti-aliasing, no resizing). Name
    it <split>-<id>.mask.png; never save over a picture.
  - CVAT: cvat-labels.json has the classes. Label Studio: label-studio.xml has them.

What counts
-----------
  - Where shapes overlap, the class further down in the list above wins.
  - Leave out what you cannot tell: unlabelled pixels (255, or black in RGB) neither train nor
    score. If all the rest is one class, import with --background CLASS.
  - A file in labels/ without shapes labels nothing.{earlier}
  - The split is fixed: a picture never moves from test to train. Label the test pictures as
    carefully as the others: they alone measure the result.

Then
----
    hdgan annotations import RUNFILE {folder} --author "your name"
Everything is checked first; nothing is imported when anything is wrong. A file is known by the
id inside it ({digits} hexadecimal digits: labels/ has it, masks that a tool makes anew have not).
Where only its name says which picture it labels, the import asks for --accept.
"""

_RANKED = """All are needed.
The training pictures come in the order to label them in, those that help most first; the others
were drawn at random before."""

_UNRANKED = """All are needed, in
any order."""

_EARLIER = """
  - Labels of before are in labels/ as shapes and in earlier/ as masks: change what is wrong,
    leave what is right. A mask saved into this folder replaces untouched shapes."""


def export_guide(
    splits: Iterable[Split],
    classes: Sequence[ClassConfig],
    *,
    size: tuple[int, int],
    mpp: float,
    digits: int,
    folder: str,
    ranked: bool,
    labelled: bool,
) -> str:
    """GUIDE.txt.

    splits    of every picture
    size      width and height of the pictures in px
    mpp       size of a pixel in micrometres
    digits    length of an id
    folder    name of the folder
    ranked    whether the training pictures are in the order in which they help
    labelled  whether some have labels already
    """
    counts = Counter(splits)
    return _GUIDE.format(
        count=counts.total(),
        width=size[0],
        height=size[1],
        mpp=mpp,
        splits=", ".join(f"{number} {split}" for split, number in counts.items()),
        order=_RANKED if ranked else _UNRANKED,
        classes="\n".join(f"  {n}  {c.name}  {c.color}" for n, c in enumerate(classes)),
        digits=digits,
        earlier=_EARLIER if labelled else "",
        folder=folder,
    )
