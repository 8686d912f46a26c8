"""What lines of the controller's log are about, as `hdgan.core.log_lines` writes it."""

from __future__ import annotations


def about(run: tuple[str, str]) -> dict[str, str]:
    """A run, by namespace and name."""
    return {"namespace": run[0], "run": run[1]}


def about_store(place: tuple[str, str]) -> dict[str, str]:
    """A store, by namespace and name."""
    return {"namespace": place[0], "store": place[1]}
