"""`python -m hdgan.controller.check SETTINGS`: whether an installation can work.

Asks the API server for every right the controller needs, and writes, reads and deletes a small
object in each store. Run with the controller's account and files, as `helm test` does.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from hdgan.controller.api import Api
from hdgan.controller.connecting import connect, own_namespace
from hdgan.controller.looking import connection
from hdgan.controller.rights import LEASE_RIGHTS, NAMESPACE_RIGHTS, Right
from hdgan.controller.settings import Settings, StoreConfig, load_settings
from hdgan.core.errors import HdganError
from hdgan.core.redaction import guard_streams
from hdgan.core.store import connected, open_store

REVIEWS = "apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
PROBLEM = 64
"""Exit code where something is missing."""


def main(arguments: list[str] | None = None) -> int:
    """Look at everything and print it; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m hdgan.controller.check", description=__doc__)
    parser.add_argument("settings", type=Path, help="the installation's settings, a YAML file")
    parser.add_argument("--kubeconfig", help="default: the pod's own account, or KUBECONFIG")
    options = parser.parse_args(arguments)
    guard_streams()
    try:
        settings = load_settings(options.settings)
        api = Api(connect(options.kubeconfig))
        problems = list(find_problems(api, own_namespace(options.kubeconfig), settings))
    except HdganError as error:
        print(f"hdgan: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    for problem in problems:
        print(f"WRONG {problem}", flush=True)
    if not problems:
        names = ", ".join(one.name for one in settings.namespaces)
        print(f"ok: rights and stores of {names}", flush=True)
    return PROBLEM if problems else 0


def find_problems(api: Api, own: str, settings: Settings) -> Iterator[str]:
    """What is missing, in words. own: the controller's namespace."""
    places = [(own, LEASE_RIGHTS, settings.election.name)]
    places += [(one.name, NAMESPACE_RIGHTS, "") for one in settings.namespaces]
    for namespace, rights, object_name in places:
        for right in sorted(rights):
            if not _allowed(api, namespace, right, object_name):
                group, resource, verb = right
                where = f"{resource}.{group}" if group else resource
                yield (
                    f"namespace {namespace}: may not {verb} {where}: give the controller's account "
                    "a Role with that, as the chart does"
                )
    for one in settings.namespaces:
        for name, store in one.stores.items():
            problem = _unusable(store)
            if problem is not None:
                yield f"namespace {one.name}, store {name}: {problem}"


def _allowed(api: Api, namespace: str, right: Right, object_name: str) -> bool:
    """object_name: empty for all objects of the kind. What is made has none yet for the API server:
    a right to make something never names it."""
    group, whole, verb = right
    resource, _, subresource = whole.partition("/")
    asked = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {
            "resourceAttributes": {
                "namespace": namespace,
                "group": group,
                "resource": resource,
                "subresource": subresource,
                "name": "" if verb == "create" else object_name,
                "verb": verb,
            }
        },
    }
    answer = api.create(REVIEWS, namespace, asked) or {}
    return bool((answer.get("status") or {}).get("allowed"))


def _unusable(store: StoreConfig) -> str | None:
    try:
        with connected(connection(store)):
            open_store(store.uri).probe()
    except HdganError as error:
        return str(error)
    return None


if __name__ == "__main__":
    sys.exit(main())
