"""The report: whole at every stage of a run, self-contained, escaped."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from hdgan.core.artifact import Artifact, Attempt
from hdgan.core.run import ClassConfig
from hdgan.desk import report_figures
from hdgan.desk.report import MAX_BYTES, render_report
from hdgan.desk.report_dataset import OF_EACH
from hdgan.desk.report_labels import LABELLED_SHOWN
from hdgan.desk.report_scores import FIGURE_2_ROWS
from hdgan.desk.report_training import GRIDS, training_panels
from hdgan.desk.run_artifacts import open_run
from support.desk_run import TinyRun, noise_rgb


class Page(HTMLParser):
    """Collects what the page refers to and whether its tags are balanced."""

    VOID = frozenset({"meta", "link", "img", "br"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.references: list[str] = []
        self.open: list[str] = []
        self.scripts = 0
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.references += [v or "" for k, v in attrs if k in ("src", "href")]
        self.scripts += tag == "script"
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def check_page(html: str) -> Page:
    page = Page(html)
    assert page.open == []
    assert page.scripts == 0
    assert all(ref.startswith(("data:", "#")) for ref in page.references)
    return page


@pytest.fixture
def run(tmp_path: Path) -> TinyRun:
    return TinyRun.create(tmp_path)


def test_a_run_that_has_not_begun_has_a_report(run: TinyRun) -> None:
    html = render_report(open_run(run.file, None))
    check_page(html)
    assert html.count("Not there yet") == 5


def test_a_run_that_waits_for_annotations_says_so(run: TinyRun) -> None:
    run.add_tiles()
    run.add_generator()
    run.add_candidates()
    html = render_report(open_run(run.file, None))
    check_page(html)
    assert "Waiting for annotations" in html
    assert "7 tiles accepted; places of the grid that gave none: 5 whitespace" in html
    assert "is truncated" in html
    assert "1 slide set aside, with reasons below." in html
    assert "<td>&lt;PAS&gt; 4</td><td>unknown</td>" in html
    assert "case-&lt;1&gt;" in html
    assert "case-<1>" not in html


def test_a_finished_run_shows_everything(run: TinyRun) -> None:
    run.finish()

    html = render_report(open_run(run.file, None))
    page = check_page(html)
    assert "Not there yet" not in html
    assert "The dataset is there: 3 image + mask pairs." in html
    for text in (
        "0.951",
        "0.931 to 0.971",
        "RGB alone",
        "0.0123",
        "1\N{NO-BREAK SPACE}min 05\N{NO-BREAK SPACE}s",
        "Dr. &lt;A&gt;",
    ):
        assert text in html
    # contact, reals, fakes, two grids, four curves, sheet; five labels beside their images; two
    # test images with label, prediction and errors; reliability; three pairs with mask and map;
    # balance, uncertainty
    pictures = 10 + 5 * 2 + 2 * 4 + 1 + 3 * 3 + 2
    assert sum(ref.startswith("data:image/") for ref in page.references) == pictures
    rows = re.findall(r"<tr class=\"total\">.*?</tr>", html, flags=re.DOTALL)
    assert len(rows) == 1
    assert render_report(open_run(run.file, None)) == html

    # That it is there does not say that it is released.
    gates = "  gates: {minMacroDice: 0.99, minPairs: 2}\n"
    run.file.write_text(run.file.read_text(encoding="utf-8") + gates, encoding="utf-8")
    html = render_report(open_run(run.file, None))
    assert "A gate said no: macro Dice 0.9512 on the test images is below" in html
    assert "Its 3 pairs are not released." in html
    assert "The dataset is there" not in html


def test_what_the_generator_was_measured_by_is_shown_with_its_floor_and_counts(
    run: TinyRun,
) -> None:
    run.add_tiles()
    generator = run.add_generator()
    lines = training_panels(generator)["KID against held-out tiles"]
    assert lines == {
        "generator": [(0.5, 0.5), (1.0, 0.25)],
        "half of the training tiles": [(0.5, 0.125), (1.0, 0.125)],
    }
    html = render_report(open_run(run.file, None))
    check_page(html)
    for text in (
        "0.250 ± 0.013",
        "80 samples, 90 held-out tiles; half of the training tiles: 0.125",
        "0.875",
        "2.5 %",
        "is no guarantee",
        "Features of some network",
    ):
        assert text in html
    assert "FID</td>" not in html


def replaced(
    artifact: Artifact, files: dict[str, bytes], inputs: dict[str, str] | None = None
) -> None:
    """Write an artifact anew with some other files, or other inputs."""
    kept = {name: artifact.read(name) for name in artifact.names()}
    manifest = artifact.manifest
    artifact.store.delete(f"artifacts/{manifest.stage}/{manifest.key}/manifest.json")
    attempt = Attempt(
        artifact.store,
        manifest.stage,
        manifest.key,
        stage_version=manifest.stage_version,
        inputs=inputs or manifest.inputs,
    )
    for name, data in (kept | files).items():
        attempt.add_bytes(name, data)
    attempt.commit({"seconds": 7200.0, "device": "cuda", "processes": 4, "run": "elsewhere"})


def plain(html: str) -> str:
    """The text of a page on one line."""
    return " ".join(re.sub(r"<[^>]+>", " ", html.split("</style>")[1]).split())


def test_the_three_questions_are_answered_first(run: TinyRun) -> None:
    run.finish()
    text = plain(render_report(open_run(run.file, None)))
    assert (
        "Macro Dice 0.951 (95 %: 0.931 to 0.971) on 2 generated test images; the best baseline, "
        "RGB and blurred RGB, gives 0.850. Weakest class: glass with 0.951." in text
    )
    assert "Not yet. Not released. tiny has no release yet. No gate was set" in text
    assert "does better" not in text
    run.release()
    text = plain(render_report(open_run(run.file, None)))
    assert "Yes. Released as tiny-" in text
    assert "which is the latest release of tiny." in text


def test_a_baseline_that_does_better_is_for_a_person_to_know(run: TinyRun) -> None:
    run.finish(dice=0.84)
    text = plain(render_report(open_run(run.file, None)))
    assert "RGB and blurred RGB does better (0.850) than the classifier (0.840)" in text


def test_gates_say_what_was_measured_against_which_bound(run: TinyRun) -> None:
    gates = "  gates: {minMacroDice: 0.9, maxKid: 0.1, minPairs: 3}\n"
    run.change("  extractor:", f"{gates}  extractor:")
    run.add_tiles()
    run.add_generator()
    text = plain(render_report(open_run(run.file, None)))
    assert "minMacroDice – at least 0.9 not decided" in text
    assert "maxKid 0.25 at most 0.1 failed" in text
    assert "Not set: minIou, minClassIou, maxMemorisation, maxDropVsLatest." in text
    assert "Outcome: GateFailed . Not released." in text


def test_a_later_run_is_compared_with_the_release_before(run: TinyRun) -> None:
    run.finish(dice=0.9)
    before = run.release()
    assert "no earlier release of tiny" in plain(render_report(open_run(run.file, None)))
    run.change("  extractor:", "  classifier: {seed: 7}\n  extractor:")
    run.finish(dice=0.95)
    text = plain(render_report(open_run(run.file, None)))
    assert f"Release {before.name} of tiny, made 2026-01-02 00:00 UTC." in text
    assert "macro Dice (test) 0.900 0.950 +0.050 better" in text
    assert "pairs 3 3 0" in text
    assert "spec.classifier.seed 0 7" in text
    for words in ("the same slides", "the same generator", "other classifier", "other dataset"):
        assert words in text
    assert f"Release {before.name} had 0.900: +0.050" in text
    released = run.release()
    assert f"Release {before.name} of tiny" in plain(render_report(open_run(run.file, None)))
    assert released.name != before.name
    # What is damaged of an earlier release does not keep this run from its report.
    run.store.put(f"runs/tiny/{before.run_digest}.json", b"[")
    text = plain(render_report(open_run(run.file, None)))
    assert f"Release {before.name} of tiny came before, but cannot be compared" in text


def test_a_mask_can_be_followed_to_its_slides(run: TinyRun) -> None:
    run.finish()
    view = open_run(run.file, None)
    text = plain(render_report(view))
    assert "Every link was checked and holds." in text
    for stage in ("dataset", "classifier", "gan-trainer", "annotations", "candidates", "tiler"):
        assert view.artifacts[stage].content_digest in text
    shard = view.artifacts["dataset"].entry("shard-00000.tar")
    assert f"shard-00000.tar (named by the index) its SHA-256 {shard.sha256}" in text
    assert "drawn as stream dataset, seed 5, index 1" in text
    assert f"slide a.svs (7 tiles) its SHA-256 {'ab' * 32}" in text
    dataset = view.artifacts["dataset"]
    replaced(dataset, {}, inputs=dataset.manifest.inputs | {"ensemble": "f" * 64})
    text = plain(render_report(open_run(run.file, None)))
    assert "A link of the lineage does not hold" in text
    assert "classifier labelled the image (the dataset was made from another one)" in text


def test_cost_is_told_apart_by_who_paid_for_it(run: TinyRun) -> None:
    run.finish()
    replaced(run.add_generator(), {})
    text = plain(render_report(open_run(run.file, None)))
    assert "gan-trainer 2 h 00 min cuda 1 4 28,800 elsewhere" in text
    assert "This run computed for 4 min 20 s , 260 device-seconds" in text
    assert "1 stage came from other runs, which had spent 2 h 00 min on it." in text


def test_a_training_that_diverged_is_drawn_and_named(run: TinyRun) -> None:
    run.add_tiles()
    log = [{"kimg": n / 10, "lossG": 1.0 + n % 2, "lossD": 1.0, "adaP": 0.1} for n in range(100)]
    log[50]["lossG"] = 1e9
    log[99] |= {"lossG": float("nan"), "lossD": float("inf")}
    text = "".join(json.dumps(one) + "\n" for one in log)
    replaced(run.add_generator(), {"training.jsonl": text.encode()})
    page = plain(render_report(open_run(run.file, None)))
    assert "Losses, 99 records. 1 point beyond the axis, up to 1e+09." in page
    assert "2 values no number or too large, first at 9.9 kimg: it has diverged." in page
    assert "The training log has 2 values that are no numbers" in page


def test_thousands_of_slides_are_counted_and_the_first_are_shown(run: TinyRun) -> None:
    tiles = run.add_tiles()
    document = json.loads(tiles.read("slides.json"))
    good, aside = document["slides"]
    document["slides"] = [good | {"name": f"{n}.svs"} for n in range(3000)]
    document["slides"] += [aside | {"name": f"bad {n}.svs"} for n in range(500)]
    replaced(tiles, {"slides.json": json.dumps(document).encode()})
    html = render_report(open_run(run.file, None))
    check_page(html)
    text = plain(html)
    assert "21,000 tiles accepted" in text
    assert "3000 of 3500 slides used, of 1 case; 500 set aside." in text
    assert "The first 200 of 3000 slides." in text
    assert "500 slides that gave nothing, with the reason; the first 200." in text
    assert len(html) < 500_000


def test_a_report_keeps_its_size_whatever_the_size_of_the_tiles() -> None:
    """With noise, which nothing compresses, in every picture, and masks of as many classes as a run
    can have: the picture of each kind times how many of them a page shows."""
    noise, few = noise_rgb(1, 1024), noise_rgb(2, 2048)
    classes = [ClassConfig(name=f"c{n}", color=f"#0000{n:02x}") for n in range(32)]
    mask = np.random.default_rng(3).integers(0, 32, (1024, 1024), dtype=np.uint8)
    figures = report_figures
    sheet = figures.photo(few, "", side=figures.PAGE_PX, most=figures.SHEET_BYTES)
    grid = figures.photo(few, "", side=figures.GRID_PX, most=figures.GRID_BYTES)
    cell, flat = figures.cell(noise, ""), figures.mask_cell(mask, classes, "")
    pairs = 3 * OF_EACH
    shown = {
        sheet.uri: 5,
        grid.uri: GRIDS,
        cell.uri: LABELLED_SHOWN + FIGURE_2_ROWS + 2 * pairs,
        flat.uri: LABELLED_SHOWN + 3 * FIGURE_2_ROWS + pairs,
    }
    assert len(shown) == 4
    charts_and_tables = 500_000
    assert sum(len(uri) * n for uri, n in shown.items()) + charts_and_tables < MAX_BYTES
