"""Texts that people write: tables of slides, run files in YAML, lists of a slide's files."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from hdgan.core.run import load_run
from hdgan.core.run_file import parse_document
from hdgan.core.slide_facts import parse_table
from hdgan.core.slides import take_snapshot
from support.fuzzing import damaged, examples, survives

FOLDER = Path(tempfile.mkdtemp(prefix="hdgan-fuzz-"))
TABLE = b"""slide,case,stain,mpp,other
a.svs,p1,HE,0.25,"x, ""y"" z"
b.svs,p2,,0.5,
"""
RUN = b"""apiVersion: hdgan.io/v1alpha1
kind: DatasetRun
metadata: {name: tiny}
spec:
  slides:
    uri: "slides"
    casePattern: '(?P<case>^...)'
  tiler: {tileSize: 64, mpp: 0.5, maxWhitespace: 1e-1}
  annotations:
    classes:
      - {name: gland, color: "#aa3355"}
      - name: stroma
        color: "#3355aa"
  # a comment
  synthesizer:
    count: 10
    quotas: []
"""
PIECES = [
    b"!!python/object/apply:os.system [ls]",
    b"&a [*a]",
    b"<<: {a: 1}",
    b"? [a, b]",
    b"- " * 2000,
    b"[" * 2000,
    b"{a: " * 2000,
    b"\xef\xbb\xbf",
    b"\x00",
    b"\x85\xe2\x80\xa8",
    b"---\n...\n---\n",
    b"%YAML 9.9\n---\n",
    b"| \n",
    b">9-\n",
    b"0o17: 0x1f",
    b"9" * 5000,
    b"1e9999",
    b".inf: .nan",
    b"2001-01-01",
    b'"\\ud800"',
    b"'",
]


@st.composite
def texts(draw: st.DrawFn, valid: bytes, pieces: list[bytes]) -> bytes:
    data = draw(st.one_of(st.just(valid), damaged(valid)))
    for _ in range(draw(st.integers(0, 2))):
        place = draw(st.integers(0, len(data)))
        data = data[:place] + draw(st.sampled_from(pieces)) + data[place:]
    return data


@examples(250, 20_000)
@given(st.one_of(texts(RUN, PIECES), st.binary(max_size=100), st.text(max_size=60).map(str.encode)))
def test_a_changed_run_file_is_read_or_refused(data: bytes) -> None:
    place = FOLDER / "run.yaml"
    place.write_bytes(data)
    survives(lambda: parse_document(place))
    survives(lambda: load_run(place))


CELLS = [b'"', b'""', b"\x00", b"\r", b"\n\n", b";;;", b"\t", b",nan,inf", b"x" * 200_000, b"\xff"]


@examples(250, 20_000)
@given(st.one_of(texts(TABLE, CELLS), st.binary(max_size=100)))
def test_a_changed_table_is_read_or_refused(data: bytes) -> None:
    found = survives(lambda: parse_table(data, ["a.svs", "sub/b.svs"], "table"))
    if isinstance(found, tuple):
        assert set(found[0]) <= {"a.svs", "sub/b.svs"}


LIST = b"[Virtual Microscope Specimen]\nNoLayers=1\nImageFile=a.jpg\nMapFile=b.jpg\n"


@examples(60)
@given(texts(LIST, [b"ImageFile=../../etc/passwd\n", b"MapFile=/etc/passwd\n", b"\x00", b"=\n"]))
def test_a_list_of_files_never_names_one_of_another_folder(data: bytes) -> None:
    folder = FOLDER / "slides"
    folder.mkdir(exist_ok=True)
    for name in ("a.jpg", "b.jpg"):
        (folder / name).write_bytes(b"x")
    (folder / "s.vms").write_bytes(data)
    for slide in take_snapshot(str(folder)).slides:
        for one in slide.companions:
            assert one.name in ("a.jpg", "b.jpg")
