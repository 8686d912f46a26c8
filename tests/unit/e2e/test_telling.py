"""Waiting for what should happen."""

from __future__ import annotations

import pytest

from e2e.telling import NotSeen, Steps, until
from hdgan.controller.api import ApiError, NotFound


def test_a_server_that_does_not_answer_is_asked_again() -> None:
    answers: list[object] = [ApiError("no answer"), ApiError("busy", 429), None, "found"]

    def look() -> object:
        one = answers.pop(0)
        if isinstance(one, Exception):
            raise one
        return one

    assert until("x", look, 10, every=0) == "found"


def test_a_refusal_ends_it() -> None:
    def look() -> object:
        raise NotFound("no such thing", 404)

    with pytest.raises(NotFound):
        until("x", look, 10, every=0)


def test_what_was_seen_instead_is_told() -> None:
    with pytest.raises(NotSeen, match=r"not within 0 s: a pod\. Seen: none"):
        until("a pod", lambda: None, 0, seen=lambda: "none")


def test_a_step_that_fails_is_not_said_to_be_well(capsys: pytest.CaptureFixture[str]) -> None:
    steps = Steps()
    with steps.step("one"):
        pass
    with pytest.raises(NotSeen), steps.step("two"):
        raise NotSeen("x")
    said = capsys.readouterr().out
    assert "== 1. one" in said
    assert "== 2. two" in said
    assert said.count("ok,") == 1
