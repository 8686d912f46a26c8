"""What is done about a definition of runs that the cluster has, or has not."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import yaml

from e2e.definition import InTheWay, handle, same
from e2e.steps import OUR_DEFINITION


@pytest.fixture
def ours() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(OUR_DEFINITION.read_text(encoding="utf-8"))
    return document


@pytest.fixture
def served(ours: dict[str, Any]) -> dict[str, Any]:
    """Ours, as an API server gives it back."""
    document = copy.deepcopy(ours)
    document["spec"]["conversion"] = {"strategy": "None"}
    document["metadata"]["uid"] = "1"
    document["status"] = {"acceptedNames": {}}
    return document


def test_what_the_server_adds_is_no_difference(
    ours: dict[str, Any], served: dict[str, Any]
) -> None:
    assert same(served, ours)
    assert handle(served, ours, {"elsewhere"}, False).do == "use"


def test_none_is_installed_by_the_chart(ours: dict[str, Any]) -> None:
    assert handle(None, ours, (), False).do == "install"


def test_another_one_is_replaced_unless_others_have_runs(
    ours: dict[str, Any], served: dict[str, Any]
) -> None:
    schema = served["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    del schema["properties"]["spec"]["properties"]["slides"]
    assert not same(served, ours)
    assert handle(served, ours, (), False).do == "update"
    with pytest.raises(InTheWay, match=r"runs in elsewhere\. UPDATE_CRD=1"):
        handle(served, ours, {"elsewhere"}, False)
    assert handle(served, ours, {"elsewhere"}, True).do == "update"
