"""What IMAGES may say."""

from __future__ import annotations

import pytest

from e2e import images


@pytest.mark.parametrize(
    ("text", "trainer"),
    [
        ("registry.test/hdgan-%s:dev", "registry.test/hdgan-gan-trainer:dev"),
        ("registry.test:5000/a/%s:0.1.0", "registry.test:5000/a/gan-trainer:0.1.0"),
        ("registry.test:dev", "registry.test/hdgan-gan-trainer:dev"),
        ("registry.test/hdgan:dev", "registry.test/hdgan-gan-trainer:dev"),
        ("registry.test/team:dev", "registry.test/team/hdgan-gan-trainer:dev"),
        ("localhost:5000:dev", "localhost:5000/hdgan-gan-trainer:dev"),
        ("hdgan-%s:dev", "hdgan-gan-trainer:dev"),
    ],
)
def test_a_pattern_or_short_for_one(text: str, trainer: str) -> None:
    pattern = images.template(text)
    assert images.image(pattern, "gan-trainer") == trainer
    one = images.values(pattern)["ganTrainer"]
    place = "/".join(filter(None, (one.get("registry"), one["repository"])))
    assert f"{place}:{one['tag']}" == trainer
    assert one["pullPolicy"] == "IfNotPresent"


@pytest.mark.parametrize(
    "text", ["", "registry.test", "registry.test/hdgan-%s", "a:5000/b", "a %s:b", "%s-%s:x", "%d:x"]
)
def test_what_is_neither_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(images.NotUnderstood, match=r"registry\.example\.org/hdgan-%s:0\.1\.0"):
        images.template(text)
