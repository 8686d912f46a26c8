"""The doctor's judgements, from what a machine says about itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hdgan.core import doctor


def test_a_container_limit_counts_more_than_the_machine() -> None:
    meminfo = "MemTotal:       16000000 kB\nMemFree: 1 kB\n"
    assert doctor.memory_limit(meminfo, None) == 16_384_000_000
    assert doctor.memory_limit(meminfo, "max\n") == 16_384_000_000
    assert doctor.memory_limit(meminfo, "2000000000\n") == 2_000_000_000
    assert doctor.memory_limit(None, None) is None
    assert doctor.cpu_quota("150000 100000\n") == 1.5
    assert doctor.cpu_quota("max 100000\n") is None
    assert doctor.cpu_quota(None) is None


@pytest.mark.parametrize(
    ("build", "devices", "levels", "words"),
    [
        (None, [], ["ok", "ok"], "none"),
        ("13.0", ["A100"], ["ok", "ok"], "A100"),
        ("13.0", [], ["warning", "ok"], "TORCH_INDEX"),
    ],
)
def test_a_cuda_build_without_a_gpu_is_pointed_out(
    build: str | None, devices: list[str], levels: list[str], words: str
) -> None:
    findings = doctor.judge_torch("2.13.0", build, devices)
    assert [finding.level for finding in findings] == levels
    assert any(words in finding.found + finding.advice for finding in findings)
    assert doctor.healthy(findings)


def test_problems_have_advice_and_make_it_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "SPEED_TEST_BYTES", 2_000_000)
    monkeypatch.setattr(doctor, "_torch", list)
    blocked = tmp_path / "file"
    blocked.write_text("")
    good = doctor.examine(tmp_path / "scratch", (tmp_path / "store").as_uri())
    assert doctor.healthy(good)
    assert list((tmp_path / "scratch").iterdir()) == []

    bad = doctor.examine(blocked / "scratch", f"file://{blocked}/store")
    problems = {finding.name: finding for finding in bad if finding.level == "problem"}
    assert set(problems) == {"scratch", "store"}
    assert all(finding.advice for finding in problems.values())
    assert json.loads(doctor.as_json(bad))["ok"] is False
