"""Whether a disk will hold what is going to be written, asked before it is."""

from __future__ import annotations

import shutil
from pathlib import Path

from hdgan.core.atomic_file import explain_os_error
from hdgan.core.errors import NoSpace
from hdgan.core.stage import format_bytes


def require_space(folder: Path, size: int, what: str) -> None:
    """NoSpace unless the disk of `folder`, which exists, has `size` bytes free for `what`."""
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise explain_os_error(error, "look at", folder) from error
    if size > free:
        raise NoSpace(
            f"{folder}: {what} needs {format_bytes(size)} more, {format_bytes(free)} are free: free"
            " some space and run the same command again, or name a folder on another disk"
        )
