"""The controller as a program: `python -m hdgan.controller SETTINGS`."""

from __future__ import annotations

import argparse
import importlib.metadata
import logging
import os
import signal
import socket
import sys
import threading
from pathlib import Path

from kubernetes.client import CoordinationV1Api

from hdgan.controller.api import Api
from hdgan.controller.connecting import connect, own_namespace
from hdgan.controller.controller import Controller
from hdgan.controller.election import Elector, make_identity
from hdgan.controller.health import Health
from hdgan.controller.kubernetes_lease import KubernetesLease
from hdgan.controller.settings import load_settings
from hdgan.core.errors import HdganError
from hdgan.core.log_lines import log_to
from hdgan.core.redaction import guard_streams
from hdgan.core.telemetry import store_requests
from hdgan.core.telemetry.stage_series import StoreSeries

logger = logging.getLogger("hdgan.controller")


def main(arguments: list[str] | None = None) -> int:
    """Wait to lead, then see to runs until told to stop; returns the exit code.

    Losing the lead ends the process at once: what it was doing is done by the next one.
    """
    parser = argparse.ArgumentParser(prog="python -m hdgan.controller", description=__doc__)
    parser.add_argument("settings", type=Path, help="the installation's settings, a YAML file")
    parser.add_argument("--kubeconfig", help="default: the pod's own account, or KUBECONFIG")
    parser.add_argument("--context", help="a context of the kubeconfig")
    version = f"hdgan-controller {importlib.metadata.version('hdgan-controller')}"
    parser.add_argument("--version", action="version", version=version)
    options = parser.parse_args(arguments)
    guard_streams()
    try:
        log_to(sys.stdout, logging.INFO)
    except HdganError as error:
        logger.error("%s", error)
        return error.exit_code
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    # See `held_signals`: what has come since the process began is heard now.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT})
    try:
        return _run(options.settings, options.kubeconfig, options.context, stop)
    except HdganError as error:
        logger.error("%s", error)
        return error.exit_code


def _run(path: Path, kubeconfig: str | None, context: str | None, stop: threading.Event) -> int:
    settings = load_settings(path)
    lease = KubernetesLease(
        CoordinationV1Api(connect(kubeconfig, context)),
        own_namespace(kubeconfig, context),
        settings.election.name,
        settings.election.retry_seconds,
    )
    health = Health(settings.health_port, [one.name for one in settings.namespaces])
    store_requests.listen(StoreSeries(health.registry))
    pod = os.environ.get("HOSTNAME") or socket.gethostname()
    elector = Elector(lease, settings.election, make_identity(pod), backstop=True)
    try:
        if not elector.wait_to_lead(stop):
            return 0
        api = Api(connect(kubeconfig, context), request_seconds=settings.election.request_seconds)
        controller = Controller(api, settings, lead=elector.require)
        try:
            controller.start()
            health.controller = controller
            logger.info("seeing to runs in %s", ", ".join(n.name for n in settings.namespaces))
            stop.wait()
        finally:
            health.controller = None
            controller.stop()
    finally:
        elector.release()
        health.stop()
    return 0
