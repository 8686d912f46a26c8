"""The variables by which processes and machines that work together are told apart."""

from __future__ import annotations

from collections.abc import Mapping

from hdgan.core.errors import RequestError

NODES = "HDGAN_NODES"
"""How many machines work together; default 1."""
NODE_RANK = "HDGAN_NODE_RANK"
"""Which of them this is, from 0; default: `JOB_COMPLETION_INDEX`."""


def whole_number(environ: Mapping[str, str], name: str, default: str) -> int:
    """A variable as a number. RequestError if it is none."""
    text = environ.get(name) or default
    if not text.isdecimal():
        raise RequestError(f"{name}={text!r}: must be a whole number")
    return int(text)


def node_rank(environ: Mapping[str, str]) -> tuple[int, int]:
    """Which machine this is, and of how many. RequestError if the variables contradict."""
    nodes = whole_number(environ, NODES, "1")
    if nodes < 1:
        raise RequestError(f"{NODES} must be at least 1")
    if nodes == 1:
        return 0, 1
    node = whole_number(environ, NODE_RANK, environ.get("JOB_COMPLETION_INDEX", ""))
    if node >= nodes:
        raise RequestError(f"{NODE_RANK} is {node}, but {NODES} is {nodes}: use 0 to {nodes - 1}")
    return node, nodes


def leads(environ: Mapping[str, str]) -> bool:
    """Whether this process is the one that reports and commits: torchrun's rank 0, or the process
    that was started on machine 0."""
    if "RANK" in environ:
        return environ["RANK"] == "0"
    return node_rank(environ)[0] == 0
