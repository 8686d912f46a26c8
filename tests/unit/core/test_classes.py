"""Classes in a request: the same rules for every stage."""

from __future__ import annotations

from typing import Any

import pytest

from hdgan.core.classes import request_classes
from hdgan.core.errors import RequestError

GOOD: list[Any] = [{"name": "gland", "color": "#aa0000"}, {"name": "stroma", "color": "#00AA00"}]


def test_order_names_and_colours_are_kept() -> None:
    classes = request_classes(GOOD)
    assert [one.name for one in classes] == ["gland", "stroma"]
    assert classes[1].rgb == (0, 170, 0)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (GOOD[:1], "at least 2"),
        ([{"name": f"c{i}", "color": f"#0000{i:02x}"} for i in range(33)], "at most 32"),
        ([GOOD[0], {"name": "gland", "color": "#000000"}], "gland"),
        ([GOOD[0], {"name": "other", "color": "#AA0000"}], "colours"),
        ([GOOD[0], {"name": "other", "color": "red"}], r"classes\.1\.color"),
        ([GOOD[0], {"name": "other"}], r"classes\.1\.color"),
        ([GOOD[0], {"name": 7, "color": "#000000"}], r"classes\.1\.name"),
        ([GOOD[0], "other"], r"classes\.1"),
        ("gland", "classes"),
        (None, "classes"),
    ],
)
def test_what_is_wrong_is_named(value: Any, said: str) -> None:
    with pytest.raises(RequestError, match=said) as caught:
        request_classes(value)
    assert "request.context.classes" in str(caught.value)
