"""Completion indexes as Jobs write them: "0-2,5"."""

from __future__ import annotations


def parse(text: str) -> set[int]:
    found: set[int] = set()
    for part in text.split(","):
        if part:
            first, _, last = part.partition("-")
            found |= set(range(int(first), int(last or first) + 1))
    return found


def write(indexes: set[int]) -> str:
    """Runs of three and more as first-last, the rest one by one."""
    runs: list[list[int]] = []
    for index in sorted(indexes):
        if runs and runs[-1][-1] == index - 1:
            runs[-1].append(index)
        else:
            runs.append([index])
    parts = []
    for run in runs:
        if len(run) > 2:
            parts.append(f"{run[0]}-{run[-1]}")
        else:
            parts += [str(index) for index in run]
    return ",".join(parts)
