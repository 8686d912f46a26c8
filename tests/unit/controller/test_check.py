"""What `check` finds wrong with an installation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hdgan.controller import check
from hdgan.controller.check import find_problems
from hdgan.controller.rights import NAMESPACE_RIGHTS
from hdgan.controller.settings import Settings


class Reviews:
    """An API server that allows all but what it is told to refuse."""

    def __init__(self, *refused: tuple[str, str]) -> None:
        self.refused = set(refused)
        self.asked: list[dict[str, Any]] = []

    def create(self, collection: str, namespace: str, document: dict[str, Any]) -> dict[str, Any]:
        assert collection == check.REVIEWS
        about = document["spec"]["resourceAttributes"]
        self.asked.append(about)
        return {"status": {"allowed": (about["resource"], about["verb"]) not in self.refused}}


def settings(tmp_path: Path) -> Settings:
    (tmp_path / "AWS_ACCESS_KEY_ID").write_text("a")
    (tmp_path / "AWS_SECRET_ACCESS_KEY").write_text("b")
    store = {"uri": "s3://bucket/x", "endpoint": "http://127.0.0.1:9", "credentials": str(tmp_path)}
    names = ("tiler", "ganTrainer", "extractor", "classifier", "synthesizer")
    document = {
        "namespaces": [{"name": "team", "stores": {"default": store}}],
        "images": {name: {"image": name} for name in names},
    }
    return Settings.model_validate(document, by_alias=True, by_name=False)


def test_each_right_is_asked_for_where_it_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "_unusable", lambda store: None)
    reviews = Reviews()
    assert list(find_problems(reviews, "own", settings(tmp_path))) == []  # type: ignore[arg-type]
    team = [one for one in reviews.asked if one["namespace"] == "team"]
    assert len(team) == len(NAMESPACE_RIGHTS)
    assert {
        "group": "hdgan.io",
        "resource": "datasetruns",
        "subresource": "status",
    }.items() <= next(one for one in team if one["subresource"]).items()
    # A Role may be for the one Lease alone, but for making it: that can name nothing.
    lease = settings(tmp_path).election.name
    own = [one for one in reviews.asked if one["namespace"] == "own"]
    assert {(one["resource"], one["verb"], one["name"]) for one in own} == {
        ("leases", "create", ""),
        ("leases", "get", lease),
        ("leases", "update", lease),
    }


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "_unusable", lambda store: "no usable answer")
    reviews = Reviews(("jobs", "patch"), ("leases", "update"))
    found = list(find_problems(reviews, "own", settings(tmp_path)))  # type: ignore[arg-type]
    assert [one.split(":", 1)[0] for one in found] == [
        "namespace own",
        "namespace team",
        "namespace team, store default",
    ]
    assert "may not update leases.coordination.k8s.io" in found[0]
    assert "may not patch jobs.batch" in found[1]
    assert found[2].endswith("no usable answer")


def test_a_store_that_does_not_answer_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("botocore.endpoint.time.sleep", lambda seconds: None)
    store = settings(tmp_path).namespaces[0].stores["default"]
    assert "127.0.0.1:9" in (check._unusable(store) or "")
