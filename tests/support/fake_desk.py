"""The desk, with a stand-in for what renders the report: fake services make nothing to show.

`install(folder)` puts it before the real one, whose other modules are found all the same. What it
does comes from `<folder>/plan/report`, as for `fake_services`.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from hdgan.desk.run_artifacts import RunArtifacts
from support import fake_services


def install(folder: Path) -> None:
    """Write the package below `folder`, where `fake_services.install` has been before."""
    package = folder / "hdgan" / "desk"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(
        "from pkgutil import extend_path\n__path__ = extend_path(__path__, __name__)\n"
    )
    (package / "__main__.py").write_text(
        "import hdgan.core.held_signals\n"
        "import hdgan.desk.report\n"
        "from hdgan.core.stage import main\n"
        "from hdgan.desk.stage import REPORT\n"
        "from support.fake_desk import render\n"
        "hdgan.desk.report.render_report = render\n"
        "main(REPORT)\n"
    )


def render(view: RunArtifacts) -> str:
    """What a test looks for in a report, after what the plan says."""
    folder = Path(os.environ[fake_services.FOLDER_VARIABLE])
    path = folder / "plan" / "report"
    word = path.read_text() if path.exists() else "ok"
    with (folder / "rendered").open("a") as file:
        file.write(f"{word}\n")
    if word == "bug":
        raise ValueError("a bug\nof two lines")
    if word == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if word == "slow":
        time.sleep(120)
    made = " ".join(sorted(view.artifacts))
    return f"<p>{view.outcome}</p><p>{view.message}</p><p>{made}</p>"


def rendered(folder: Path) -> int:
    """How often something was to be rendered."""
    path = folder / "rendered"
    return len(path.read_text().split()) if path.exists() else 0
