"""Nothing in text from outside does anything to the terminal it is shown on."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hdgan.core.cli import app
from hdgan.core.printable import printable
from hdgan.core.progress_view import open_view

TITLE = "a\x1b]0;owned\x07b.svs"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (TITLE, r"a\x1b]0;owned\x07b.svs"),
        ("gone\rOK", r"gone\x0dOK"),
        ("\x9b2J", r"\x9b2J"),
        ("gpj.\u202eexe", r"gpj.\u202eexe"),
        ("Gewebe, 5 µm\n\tnächste Zeile – 染色", "Gewebe, 5 µm\n\tnächste Zeile – 染色"),
    ],
)
def test_control_characters_are_shown_and_not_obeyed(text: str, shown: str) -> None:
    assert printable(text) == shown


@pytest.mark.parametrize("bars", [False, True])
def test_what_a_stage_says_reaches_the_terminal_printable(bars: bool) -> None:
    out = io.StringIO()
    view = open_view(out, bars=bars)
    view.started("tiler")
    view.event("tiler", {"event": "log", "level": "warning", "message": f"{TITLE}: unreadable"})
    view.close()
    assert r"warning: a\x1b]0;owned\x07b.svs: unreadable" in out.getvalue()
    assert "\x1b]0;" not in out.getvalue()


def test_names_of_strange_files_in_a_store_do_nothing_to_the_terminal(tmp_path: Path) -> None:
    (tmp_path / TITLE).write_bytes(b"")
    shown = CliRunner().invoke(app, ["gc", "--store", str(tmp_path)]).output
    assert r"a\x1b]0;owned\x07b.svs" in shown
    assert "\x1b" not in shown
