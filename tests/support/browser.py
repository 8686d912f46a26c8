"""A page in a real browser: Debian's Chromium without a window, driven by selenium."""

from __future__ import annotations

import base64
import io
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pypdf
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

CHROMIUM = shutil.which("chromium")
DRIVER = shutil.which("chromedriver")

_BROKEN = """
return Array.from(document.images)
  .filter(one => !(one.complete && one.naturalWidth > 0))
  .map(one => one.alt || one.src.slice(0, 60));
"""

# Elements that reach over the right edge of the page, unless something around them scrolls.
_OVER_THE_EDGE = """
const edge = document.documentElement.clientWidth + 1, found = [];
for (const one of document.querySelectorAll('body *')) {
  if (one.getBoundingClientRect().right <= edge) continue;
  let around = one.parentElement;
  while (around && !['auto', 'scroll'].includes(getComputedStyle(around).overflowX))
    around = around.parentElement;
  if (!around) found.push(one.tagName + ': ' + one.textContent.trim().slice(0, 60));
}
return found;
"""

# Contrast (WCAG 2) of each element's own text against the colours behind it, the least first.
_CONTRASTS = """
const parse = text => {
  const found = text.match(/[\\d.]+/g).map(Number);
  return found.length > 3 ? found : [...found.slice(0, 3), 1];
};
const over = (top, below) => [0, 1, 2].map(i => top[i] * top[3] + below[i] * (1 - top[3]));
const light = colour => colour.slice(0, 3).map(c => c / 255)
  .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
  .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
const found = [];
for (const one of document.querySelectorAll('body *')) {
  const own = Array.from(one.childNodes)
    .some(node => node.nodeType === 3 && node.textContent.trim());
  if (!own || !one.checkVisibility()) continue;
  const layers = [];
  for (let at = one; at; at = at.parentElement) {
    layers.unshift(parse(getComputedStyle(at).backgroundColor));
  }
  let behind = [255, 255, 255];
  for (const layer of layers) behind = over(layer, behind);
  const ink = over(parse(getComputedStyle(one).color), behind);
  const [low, high] = [light(ink), light(behind)].sort((a, b) => a - b);
  const what = one.tagName + ': ' + one.textContent.trim().slice(0, 60);
  found.push([(high + 0.05) / (low + 0.05), what]);
}
return found.sort((a, b) => a[0] - b[0]);
"""


@dataclass(frozen=True)
class Browser:
    """One tab; what is set (size, colours) holds until it is set again."""

    driver: webdriver.Chrome

    def look(
        self, page: Path, *, width: int = 1280, dark: bool = False, paper: bool = False
    ) -> None:
        """Open a file at a width in CSS pixels, in light or dark, on screen or as on paper."""
        self._tell(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600},
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        # Without paper nothing is said: what is said holds when it is printed, too.
        media = {"media": "print" if paper else "", "features": [scheme]}
        self._tell("Emulation.setEmulatedMedia", media)
        self._console()  # of the page before
        self.driver.get(page.as_uri())

    def complaints(self) -> list[str]:
        """What the browser has written to its console about the page: errors and warnings."""
        return [
            f"{one['level']}: {one['message']}"
            for one in self._console()
            if one["level"] in ("SEVERE", "WARNING")
        ]

    def pictures(self) -> int:
        """Pictures on the page."""
        return int(self.ask("return document.images.length"))

    def broken_pictures(self) -> list[str]:
        """Those that did not load."""
        return [str(one) for one in self.ask(_BROKEN)]

    def sideways(self) -> int:
        """CSS pixels that the page can be scrolled sideways; 0 for a page that fits."""
        page = "document.documentElement"
        return int(self.ask(f"return {page}.scrollWidth - {page}.clientWidth"))

    def over_the_edge(self) -> list[str]:
        """Elements that do not fit and cannot be scrolled to by themselves."""
        return [str(one) for one in self.ask(_OVER_THE_EDGE)]

    def contrasts(self) -> list[tuple[float, str]]:
        """Contrast of every visible text with what is behind it, 1 to 21, the least first."""
        return [(float(value), str(text)) for value, text in self.ask(_CONTRASTS)]

    def text(self) -> str:
        """All text that is visible."""
        return str(self.ask("return document.body.innerText"))

    def pdf(self) -> pypdf.PdfReader:
        """The page printed on A4."""
        made = self._tell(
            "Page.printToPDF",
            {
                "paperWidth": 8.27,
                "paperHeight": 11.69,
                "printBackground": False,
                "preferCSSPageSize": True,
            },
        )
        return pypdf.PdfReader(io.BytesIO(base64.b64decode(made["data"])))

    def screenshot(self, *, whole: bool = False) -> bytes:
        """PNG of what the window shows, or of the whole page."""
        made = self._tell("Page.captureScreenshot", {"captureBeyondViewport": whole})
        return base64.b64decode(made["data"])

    def ask(self, script: str) -> Any:
        """What a script returns that runs in the page."""
        return self.driver.execute_script(script)

    def _console(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.driver.get_log("browser")  # type: ignore[no-untyped-call]
        return found

    def _tell(self, command: str, values: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = self.driver.execute_cdp_cmd(command, values)
        return found


def start(profile: Path) -> Browser:
    """A browser with a profile of its own that reaches no other machine; `driver.quit()` ends it.

    profile  empty folder
    """
    options = Options()
    options.binary_location = str(CHROMIUM)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for one in (
        "--headless=new",
        "--no-sandbox",  # root, in a container: the page is our own
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--host-resolver-rules=MAP * ~NOTFOUND",
        "--hide-scrollbars",
        f"--user-data-dir={profile}",
    ):
        options.add_argument(one)
    return Browser(webdriver.Chrome(options, Service(DRIVER)))
