"""What the pods of a Job have written, container by container."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from hdgan.controller.api import PODS, Api, ApiError, Document
from hdgan.controller.facts import pod_facts
from hdgan.core.printable import printable

AGAIN_SECONDS = 2.0
"""How often a container that has not started is asked again, when its log is followed."""


@dataclass(frozen=True)
class Source:
    """A container whose log is wanted. `title` is put before its lines; empty if it is alone."""

    pod: str
    container: str
    title: str = ""


def sources(pods: Iterable[Document]) -> list[Source]:
    """All containers of these pods, the oldest pod first and in a pod in the order they run."""
    found: list[tuple[str, str, list[str]]] = []
    for pod in sorted(pods, key=lambda one: one["metadata"].get("creationTimestamp") or ""):
        facts, spec = pod_facts(pod), pod["spec"]
        names = [one["name"] for one in [*(spec.get("initContainers") or []), *spec["containers"]]]
        found += [
            (facts.name, name, [] if facts.index is None else [f"part {facts.index}"])
            for name in names
        ]
    several_pods = len({pod for pod, _, _ in found}) > 1
    several_containers = len({name for _, name, _ in found}) > 1
    return [
        Source(
            pod,
            name,
            ", ".join(
                [
                    *((part or [pod]) if several_pods else []),
                    *([name] if several_containers else []),
                ]
            ),
        )
        for pod, name, part in found
    ]


def print_logs(
    api: Api,
    namespace: str,
    wanted: Sequence[Source],
    *,
    follow: bool,
    say: Callable[[str], None],
    warn: Callable[[str], None],
    read: Callable[[str], str] = printable,
) -> None:
    """Print each line of each log, as `read` makes it out; with `follow` of all at once, until the
    containers end."""
    if follow:
        lock = threading.Lock()

        def said(line: str) -> None:
            with lock:
                say(line)

        # As many at once as there are: one that waited for its turn would seem to say nothing.
        with ThreadPoolExecutor(max_workers=len(wanted)) as pool:
            list(pool.map(lambda one: _print(api, namespace, one, True, said, warn, read), wanted))
    else:
        for one in wanted:
            _print(api, namespace, one, False, say, warn, read)


def _print(
    api: Api,
    namespace: str,
    source: Source,
    follow: bool,
    say: Callable[[str], None],
    warn: Callable[[str], None],
    read: Callable[[str], str],
) -> None:
    prefix = f"{source.title} | " if source.title else ""
    while True:
        try:
            for line in api.log(namespace, source.pod, source.container, follow=follow):
                say(f"{prefix}{read(line)}")
            return
        except ApiError as error:
            # 400: the container has not started.
            if not (follow and error.status == 400 and _may_start(api, namespace, source.pod)):
                warn(f"{source.pod}, {source.container}: no log ({error})")
                return
            time.sleep(AGAIN_SECONDS)


def _may_start(api: Api, namespace: str, pod: str) -> bool:
    document = api.get(PODS, namespace, pod)
    return document is not None and not pod_facts(document).finished
