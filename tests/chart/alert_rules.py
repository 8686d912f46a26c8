"""The alerts as Helm renders them, and what a Prometheus beside `hdgan run` gets of them."""

from __future__ import annotations

import re
from typing import Any, Final

import yaml

from chart.helms import Document, Helm, Made
from chart.values_schema import alert_names

Rule = dict[str, Any]

NEED_A_CLUSTER: Final = re.compile(r"HdganController|HdganNamespace|HdganReconcile|HdganPreemption")
"""Alerts about what is not there without a cluster, with the two below."""
LOCAL: Final[Document] = {
    "stores": {"default": {"uri": "s3://none"}},
    "monitoring": {
        "prometheusRule": {
            "enabled": True,
            "job": "hdgan",
            "stagesJob": "hdgan",
            "disabled": [
                name
                for name in alert_names()
                if NEED_A_CLUSTER.match(name)
                or name in ("HdganStoreUnreachable", "HdganStageSilent")
            ],
        }
    },
}
WORDS: Final = """\
# Alerts about local runs, for `rule_files` of a Prometheus that reads `hdgan run --metrics-port`.
# docs/alerts.md says what each means. Written by make chart-files, from the chart's templates.
"""


def groups(made: list[Made]) -> Document:
    """The rules as a Prometheus reads them from a file."""
    (found,) = [one for one in made if one.kind == "PrometheusRule"]
    spec: Document = found.document["spec"]
    return spec


def rules(made: list[Made]) -> list[Rule]:
    """All of them."""
    return [rule for group in groups(made)["groups"] for rule in group["rules"]]


def local_rules(helm: Helm) -> str:
    """The file for local runs."""
    text = yaml.dump(groups(helm.template(LOCAL)), Dumper=_Plain, sort_keys=False, width=120)
    return WORDS + text


class _Plain(yaml.SafeDumper):
    """Writes text of several lines as it is."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Plain.add_representer(str, _text)
