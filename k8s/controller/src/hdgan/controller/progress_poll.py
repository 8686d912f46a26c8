"""Asks running pods how far they are: many at once, none for long."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from hdgan.controller.facts import PodFacts
from hdgan.controller.status import ProgressStatus

SECONDS = 2.0
AT_ONCE = 16
MOST_BYTES = 64 << 10

Fetch = Callable[[str], Mapping[str, Any] | None]
# Pods are asked directly, whatever proxy the environment names.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def fetch(url: str) -> Mapping[str, Any] | None:
    """The document at a pod's `/progress`; None if there is none to be had."""
    try:
        with _OPENER.open(url, timeout=SECONDS) as answer:
            document = json.loads(answer.read(MOST_BYTES))
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) else None


def ask(
    pods: Mapping[str, list[PodFacts]], port: int, fetch: Fetch = fetch
) -> dict[str, ProgressStatus]:
    """Progress by Job. pods: the running ones of each Job; several are added up."""
    places = {
        (job, pod.name): f"http://{_host(pod.address)}:{port}/progress"
        for job, several in pods.items()
        for pod in several
        if pod.running and pod.address
    }
    if not places:
        return {}
    with ThreadPoolExecutor(min(AT_ONCE, len(places)), "progress") as pool:
        answers = list(pool.map(fetch, places.values()))
    found: dict[str, ProgressStatus] = {}
    for (job, _), answer in zip(places, answers, strict=True):
        progress = None if answer is None else _read(answer)
        if progress is not None:
            found[job] = _added(found[job], progress) if job in found else progress
    return found


def _host(address: str | None) -> str:
    return f"[{address}]" if address and ":" in address else str(address)


def _read(answer: Mapping[str, Any]) -> ProgressStatus | None:
    done, total, eta = answer.get("done"), answer.get("total"), answer.get("eta")
    if not isinstance(done, int | float):
        return None
    return ProgressStatus(
        done=float(done),
        total=float(total) if isinstance(total, int | float) else None,
        unit=str(answer.get("unit") or "")[:32],
        eta=float(eta) if isinstance(eta, int | float) else None,
    )


def _added(one: ProgressStatus, other: ProgressStatus) -> ProgressStatus:
    totals = None if one.total is None or other.total is None else one.total + other.total
    etas = [eta for eta in (one.eta, other.eta) if eta is not None]
    return ProgressStatus(
        done=one.done + other.done, total=totals, unit=one.unit, eta=max(etas, default=None)
    )
