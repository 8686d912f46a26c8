"""Whether NetworkPolicies let somebody reach something, as the API's documentation has it."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from chart.helms import Document, Made
from chart.judging import selects


@dataclass(frozen=True)
class Place:
    """A pod, or an address out of the cluster."""

    namespace: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    address: str = ""


def allowed(
    made: Iterable[Made], source: Place, target: Place, port: int, protocol: str = "TCP"
) -> bool:
    """Whether policies let `source` reach a port of `target`."""
    policies = [one.document for one in made if one.kind == "NetworkPolicy"]
    out = _passes(policies, "Egress", source, target, port, protocol)
    return out and _passes(policies, "Ingress", target, source, port, protocol)


def _passes(
    policies: list[Document], way: str, pod: Place, other: Place, port: int, protocol: str
) -> bool:
    rules = list(_rules(policies, way, pod))
    return not rules or any(
        rule is not None and _has(rule, way, pod, other, port, protocol) for rule in rules
    )


def _rules(policies: list[Document], way: str, pod: Place) -> Iterator[Document | None]:
    """Rules that hold for a pod; None for a policy without any, which isolates it all the same."""
    if pod.address:
        return
    for policy in policies:
        spec = policy["spec"]
        here = policy["metadata"]["namespace"] == pod.namespace
        if here and way in spec["policyTypes"] and selects(spec["podSelector"], pod.labels):
            yield None
            for rule in spec.get(way.lower()) or []:
                yield {**rule, "namespace": pod.namespace}


def _has(rule: Document, way: str, pod: Place, other: Place, port: int, protocol: str) -> bool:
    ports = rule.get("ports")
    if ports and not any((one["protocol"], one["port"]) == (protocol, port) for one in ports):
        return False
    peers = rule.get("to" if way == "Egress" else "from")
    return not peers or any(_is(peer, rule["namespace"], other) for peer in peers)


def _is(peer: Document, namespace: str, other: Place) -> bool:
    if "ipBlock" in peer:
        if not other.address:
            return False
        address = ipaddress.ip_address(other.address)
        block = peer["ipBlock"]
        outside = any(address in ipaddress.ip_network(one) for one in block.get("except") or [])
        return address in ipaddress.ip_network(block["cidr"]) and not outside
    if other.address:
        return False
    names = {"kubernetes.io/metadata.name": other.namespace}
    spaces = peer.get("namespaceSelector")
    if other.namespace != namespace if spaces is None else not selects(spaces, names):
        return False
    return "podSelector" not in peer or selects(peer["podSelector"], other.labels)
