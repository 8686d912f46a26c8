"""Helm for the tests of the chart."""

from __future__ import annotations

import os

import pytest

from chart.helms import REQUIRED, Helm, NoHelm, helms


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that asks for `helm` runs with Helm 3 and 4, or the one HELM names."""
    if "helm" in metafunc.fixturenames:
        names = ["helm"] if os.environ.get("HELM") else ["helm3", "helm4"]
        metafunc.parametrize("helm", names, indirect=True, scope="session")


@pytest.fixture(scope="session")
def programs() -> dict[str, Helm]:
    """All Helm programs by name; skips where they cannot be had."""
    try:
        return {name: Helm(program) for name, program in helms().items()}
    except NoHelm as error:
        if os.environ.get(REQUIRED):
            pytest.fail(str(error))
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def helm(request: pytest.FixtureRequest, programs: dict[str, Helm]) -> Helm:
    """Each of the Helm programs in turn."""
    return programs[request.param]


@pytest.fixture(scope="session")
def newest(programs: dict[str, Helm]) -> Helm:
    """One of them, where one is enough."""
    return list(programs.values())[-1]
