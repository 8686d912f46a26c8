"""The browser of this folder's tests. Where there is none they are skipped."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.browser import CHROMIUM, DRIVER, Browser, start


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Chromium without a window; one for all tests of a process."""
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("no chromium and chromedriver here (Debian: apt install chromium-driver)")
    browser = start(tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.driver.quit()
