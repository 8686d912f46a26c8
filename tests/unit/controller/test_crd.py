"""The CustomResourceDefinition: structural, and of one mind with the models it is made from."""

from __future__ import annotations

import copy
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import kubernetes_validate
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, JsonValue, ValidationError

from hdgan.controller.crd import NotStructural, crd, main, structural
from hdgan.controller.status import (
    ConditionStatus,
    EndStatus,
    PinnedStatus,
    RunStatus,
    StageStatus,
)
from hdgan.core.errors import RequestError
from hdgan.core.gates import GateVerdict
from hdgan.core.request import InputRef
from hdgan.core.resources import ScratchConfig
from hdgan.core.run import DatasetRun, parse_run
from hdgan.core.run_file import parse_document
from support.runs import DOCUMENT, changed
from support.structural import Resource, rules

ROOT = Path(__file__).parents[3]
FILE = ROOT / "k8s" / "crd" / "datasetruns.hdgan.io.yaml"
DEFINITION: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
VERSION: dict[str, Any] = DEFINITION["spec"]["versions"][0]
SCHEMA: dict[str, Any] = VERSION["schema"]["openAPIV3Schema"]
RUNS = Resource(SCHEMA)
MUTABLE = {"suspend", "retry", "resources", "gates"}

# What the smallest run leaves null or absent, so that `full` has every field.
POD: dict[str, Any] = {
    "cpu": "500m",
    "memory": "64Gi",
    "gpus": 1,
    "gpuResource": "nvidia.com/gpu",
    "resourceClaimTemplate": "two-gpus",
    "ephemeralStorage": "100Gi",
    "sharedMemory": "8Gi",
    "nodeSelector": {"topology.kubernetes.io/zone": "a"},
    "tolerations": [
        {
            "key": "gpu",
            "operator": "Equal",
            "value": "yes",
            "effect": "NoExecute",
            "tolerationSeconds": 60,
        }
    ],
    "affinity": {"nodeAffinity": {"anything": [{"at": "all"}]}},
    "priorityClass": "high",
    "runtimeClass": "nvidia",
}
FILLED: dict[str, Any] = {
    "slides": {
        "metadata": "slides.csv",
        "outlines": "outlines",
        "casePattern": "^(?P<case>[^_]+)",
    },
    "tiler": {"stride": 32, "minFocus": 0.3, "compartments": ["glomerulus"]},
    "ganTrainer": {
        "preset": "paper",
        "r1Gamma": 1.0,
        "convClamp": 256,
        "adaKimg": 100,
        "perDeviceBatch": 8,
        "initFrom": "init",
    },
    "classifier": {
        "optimizer": "adam",
        "learningRate": 0.001,
        "batch": 64,
        "dropout": 0.1,
        "epochs": 3,
        "epochPixels": 1000,
    },
    "synthesizer": {
        "quotas": [{"class": "dermis", "minFraction": 0.5, "share": 0.5}],
        "ignoreAbove": 0.9,
        "smoothing": "majority",
        "smoothingRadius": 2,
    },
    "gates": {
        "minMacroDice": 0.5,
        "minIou": 0.4,
        "minClassIou": {"dermis": 0.3},
        "maxKid": 0.5,
        "maxMemorisation": 0.1,
        "minPairs": 1,
        "maxDropVsLatest": 0.02,
    },
    "rerun": {
        "tiler": "a",
        "gan-trainer": "b",
        "candidates": "c",
        "classifier": "d",
        "dataset": "e",
    },
    "retry": "2026-11-24",
    "dataset": "skin",
    "resources": {
        "processes": 2,
        "tileCacheGigabytes": 10,
        "store": "team",
        "queue": "gpus",
        "lostNodeSeconds": 600,
        "scratch": {"ephemeral": {"storageClass": "fast", "size": "10Gi"}},
        "pods": {
            "tiler": POD | {"parts": 4},
            "ganTrainer": POD | {"nodes": 2},
            "candidates": POD,
            "extractor": POD,
            "classifier": POD,
            "dataset": POD | {"parts": 2},
        },
    },
}


def merged(base: Any, over: Any) -> Any:
    if isinstance(base, dict) and isinstance(over, dict):
        return base | {name: merged(base.get(name), value) for name, value in over.items()}
    return over


def full_run() -> dict[str, Any]:
    document = parse_run(DOCUMENT).model_dump(mode="json", by_alias=True)
    # Through JSON: no two pods share a list, so that one can be changed alone.
    result: dict[str, Any] = json.loads(json.dumps(merged(document, {"spec": FILLED})))
    return result


FULL = full_run()


def refused_by_model(document: object) -> bool:
    try:
        parse_run(document)
    except RequestError:
        return True
    return False


# Fields as the models say them. This does not use the generator: it reads pydantic's own schema.


def model_leaves() -> list[tuple[str, dict[str, Any]]]:
    """Every field below spec that holds a value: its path and its bounds."""
    document = DatasetRun.model_json_schema(by_alias=True)

    def walk(node: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
        if "anyOf" in node:
            first = next(one for one in node["anyOf"] if one != {"type": "null"})
            node = first | {"null": True}
        if "$ref" in node:
            node = node | document["$defs"][node["$ref"].rpartition("/")[2]]
        if "properties" in node:
            for name, inner in node["properties"].items():
                yield from walk(inner, f"{path}.{name}")
            return
        yield path, node
        if node.get("type") == "array":
            yield from walk(node["items"], f"{path}.0")
        for name in node.get("propertyNames", {}).get("enum", []):
            yield from walk(node["additionalProperties"], f"{path}.{name}")

    return list(walk(document["$defs"]["RunSpec"], "spec"))


LEAVES = model_leaves()


def by_path(value: object) -> str:
    return value if isinstance(value, str) else ""


def bad_values(node: dict[str, Any], good: Any) -> Iterator[Any]:
    """Values that break one bound each, and values of other types."""
    kind = node.get("type")
    if "enum" in node:
        yield "no-such-value"
    if "minimum" in node:
        yield node["minimum"] - 1
    if "maximum" in node:
        yield node["maximum"] + 1
    for bound in ("exclusiveMinimum", "exclusiveMaximum"):
        if bound in node:
            yield node[bound]
    if node.get("minLength"):
        yield ""
    if "maxLength" in node:
        yield "a" * (node["maxLength"] + 1)
    if "pattern" in node:
        yield "?"
    if node.get("minItems"):
        yield []
    if "maxItems" in node:
        yield (good * (node["maxItems"] + 1))[: node["maxItems"] + 1]
    if kind == "object" and "enum" not in node.get("propertyNames", {}):
        yield {f"key{number}": "a" for number in range(node["maxProperties"] + 1)}
    if kind == "object" and "propertyNames" in node:
        yield {"tiler": 1 if node["additionalProperties"].get("type") == "string" else "a"}
    if "enum" in node.get("propertyNames", {}):
        yield {"no-such-key": "a"}
    others: dict[str, Any] = {
        "string": "1",
        "integer": 1,
        "boolean": True,
        "array": [],
        "object": {},
    }
    alike = {"number": {"integer"}, "const": {"string"}}.get(kind or "", {kind})
    for other, value in others.items():
        if other not in alike and kind is not None:
            yield value
    if kind == "integer":
        yield 1.5


def good_values(node: dict[str, Any]) -> list[Any]:
    """Values within the bounds, the outermost above all."""
    if "enum" in node:
        return list(node["enum"])
    if node.get("type") in ("integer", "number"):
        inside = [node[bound] for bound in ("minimum", "maximum") if bound in node]
        step = 1 if node["type"] == "integer" else 1e-6
        inside += [node["exclusiveMinimum"] + step] if "exclusiveMinimum" in node else []
        inside += [node["exclusiveMaximum"] - step] if "exclusiveMaximum" in node else []
        return inside
    if node.get("type") == "boolean":
        return [True, False]
    if node.get("type") == "string" and "pattern" not in node:
        return ["a" * node.get("minLength", 0), "ä" * node["maxLength"]]
    return []


def put(document: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy with one value changed; numbers in the path are places in lists."""
    result = copy.deepcopy(document)
    *parents, last = [int(part) if part.isdecimal() else part for part in path.split(".")]
    target: Any = result
    for part in parents:
        target = target[part]
    target[last] = value
    return result


def got(document: Any, path: str) -> Any:
    for part in path.split("."):
        document = document[int(part) if part.isdecimal() else part]
    return document


REQUIRED = {"spec.slides.uri", "spec.annotations.classes"}


def without(document: dict[str, Any], path: str) -> dict[str, Any]:
    result = copy.deepcopy(document)
    parent, _, last = path.rpartition(".")
    del got(result, parent)[last]
    return result


# The file


def test_the_file_is_up_to_date(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main([str(FILE), "--check"]) == 0, f"python -m hdgan.controller.crd {FILE}"
    assert crd() == DEFINITION
    other = tmp_path / "crd" / FILE.name
    assert main([str(other), "--check"]) == 1
    assert f"hdgan.controller.crd k8s/crd/{FILE.name}" in capsys.readouterr().out
    assert main([str(other)]) == 0
    assert other.read_bytes() == FILE.read_bytes()
    other.write_text("spec: {}")
    assert main([str(other), "--check"]) == 1


def test_kubernetes_own_schema_takes_the_definition() -> None:
    kubernetes_validate.validate(DEFINITION, "1.37", strict=True)
    assert DEFINITION["metadata"]["name"] == "datasetruns.hdgan.io"
    # kubectl apply keeps the whole document in an annotation of at most 256 kB.
    assert len(str(DEFINITION)) < 200_000


def test_names_and_columns() -> None:
    spec = DEFINITION["spec"]
    assert spec["scope"] == "Namespaced"
    assert spec["names"]["shortNames"] == ["dsr"]
    assert VERSION["subresources"] == {"status": {}}
    columns = VERSION["additionalPrinterColumns"]
    assert [one["name"] for one in columns if not one.get("priority")] == [
        "Phase",
        "Stage",
        "Progress",
        "Dice",
        "Age",
    ]
    assert {one["name"] for one in columns if one.get("priority") == 1} == {"Message", "Store"}
    for column in columns:
        node = SCHEMA
        if column["jsonPath"] != ".metadata.creationTimestamp":
            for name in column["jsonPath"].lstrip(".").split("."):
                node = node["properties"][name]
            assert node["type"] == column["type"]


# The schema


def nodes(node: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, node
    for name, inner in node.get("properties", {}).items():
        yield from nodes(inner, f"{path}.{name}")
    if "items" in node:
        yield from nodes(node["items"], f"{path}[]")
    if "additionalProperties" in node:
        yield from nodes(node["additionalProperties"], f"{path}.*")


ALLOWED = {
    "string": {"enum", "minLength", "maxLength", "pattern"},
    "integer": {"format", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"},
    "number": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"},
    "boolean": set(),
    "array": {
        "items",
        "minItems",
        "maxItems",
        "x-kubernetes-list-type",
        "x-kubernetes-list-map-keys",
    },
    "object": {
        "properties",
        "required",
        "additionalProperties",
        "maxProperties",
        "x-kubernetes-preserve-unknown-fields",
        "x-kubernetes-validations",
    },
}


@pytest.mark.parametrize(("path", "node"), list(nodes(SCHEMA)), ids=by_path)
def test_every_node_is_structural_and_bounded(path: str, node: dict[str, Any]) -> None:
    kind = node["type"]
    assert set(node) <= ALLOWED[kind] | {"type", "description", "nullable"}
    if path == ".metadata":
        assert node == {"type": "object"}  # the API server takes nothing else at the root
        return
    assert node.get("nullable", True) is True
    assert not (node.get("nullable") and "enum" in node), "null is never among an enum's values"
    assert "\n" not in node.get("description", "")
    if kind == "string":
        assert "enum" in node or node["maxLength"] <= 2048
        assert all(isinstance(value, str) for value in node.get("enum", []))
        assert not re.search(r"\(\?|\\[1-9]", node.get("pattern", "")), "RE2 cannot"
    if kind == "array":
        assert node["maxItems"] <= 1000
        assert not node["items"].get("nullable")
    if kind == "object":
        ways = {"properties", "additionalProperties", "x-kubernetes-preserve-unknown-fields"}
        assert len(ways & set(node)) == 1
        assert "properties" in node or node["maxProperties"] <= 100
        assert set(node.get("required", [])) <= set(node.get("properties", {}))
    for bound in ("Minimum", "Maximum"):
        if f"exclusive{bound}" in node:
            assert node[f"exclusive{bound}"] is True
            assert bound.lower() in node
    if kind == "integer":
        small = node.get("minimum", -(2**63)) >= -(2**31) and node.get("maximum", 2**63) < 2**31
        assert node.get("format") == (None if small else "int64")


def test_lists_of_the_status_are_known_by_their_key() -> None:
    status = SCHEMA["properties"]["status"]["properties"]
    for name, key in (("conditions", "type"), ("stages", "name")):
        assert status[name]["x-kubernetes-list-type"] == "map"
        assert status[name]["x-kubernetes-list-map-keys"] == [key]
        assert key in status[name]["items"]["required"]


def test_affinity_is_kept_as_it_is() -> None:
    affinity = [node for path, node in nodes(SCHEMA) if path.endswith(".affinity")]
    assert len(affinity) == 6
    assert all(node["x-kubernetes-preserve-unknown-fields"] for node in affinity)


class Inner(BaseModel):
    text: str = Field("", max_length=5)


@pytest.mark.parametrize(
    ("annotation", "says"),
    [
        (str, "text without a bound"),
        (Annotated[str, Field(pattern="^a+$")], "text without a bound"),
        (list[Inner], "list without a bound"),
        (Annotated[list[str], Field(max_length=3)], r"field\[\]: text without"),
        (dict[str, int], "map without a bound"),
        (Annotated[dict[str, str], Field(max_length=3)], r"field\.\*: text without"),
        (Annotated[dict[Literal["a", "b"], int], Field(max_length=1)], "2 keys"),
        (
            Annotated[
                dict[Annotated[str, Field(pattern="^a$")], Annotated[str, Field(max_length=1)]],
                Field(max_length=3),
            ],
            "does not say what is in it",
        ),
        (Annotated[list[int | None], Field(max_length=3)], "null in a list"),
        (int | bool, "choice between types"),
        (JsonValue, "cannot say"),
        (None, "cannot say 'null'"),
        (Literal[1], "cannot say"),
        (Annotated[int, Field(multiple_of=2)], "cannot say multipleOf"),
        (Annotated[int, Field(ge=1, gt=2)], "both minimum and"),
        (tuple[int, int], "cannot say prefixItems|without a bound"),
        (Annotated[set[int], Field(max_length=3)], "cannot say uniqueItems"),
    ],
)
def test_what_a_schema_cannot_say_is_an_error_with_the_path(annotation: Any, says: str) -> None:
    model = type("Model", (BaseModel,), {"__annotations__": {"field": annotation}})
    with pytest.raises(NotStructural, match=rf"^top\.field.*({says})|^top\.({says})"):
        structural(model, "top")


def test_what_a_model_says_of_a_field_goes_before_what_it_says_of_itself() -> None:
    class Outer(BaseModel):
        inner: Annotated[Inner, Field(description="Of\n  the field.")]
        exact: Annotated[str, Field(pattern="^#[0-9a-f]{6}$")]
        one: Literal["a"]

    fields = structural(Outer, "top")["properties"]
    assert fields["inner"]["description"] == "Of the field."
    assert fields["exact"]["maxLength"] == 7
    assert fields["one"] == {"type": "string", "enum": ["a"]}


# The schema and the models are of one mind


def sample_runs() -> list[Any]:
    found = [pytest.param(DOCUMENT, id="small"), pytest.param(FULL, id="full")]
    for path in sorted([*ROOT.glob("examples/**/*.yaml"), *ROOT.glob("docs/**/*.yaml")]):
        text = path.read_text(encoding="utf-8")
        if re.search("^kind: DatasetRun$", text, re.MULTILINE):
            found.append(pytest.param(parse_document(path), id=str(path.relative_to(ROOT))))
    texts = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/**/*.md")]
    for path in sorted(texts):
        blocks = re.findall(r"^```yaml\n(.*?)^```", path.read_text(encoding="utf-8"), re.M | re.S)
        for block in blocks:
            if "kind: DatasetRun" in block:
                name = f"{path.relative_to(ROOT)}"
                found.append(pytest.param(yaml.safe_load(block), id=name))
    return found


@pytest.mark.parametrize("document", sample_runs())
def test_sample_runs_are_accepted(document: dict[str, Any]) -> None:
    assert not refused_by_model(document)
    assert RUNS.problems(document) == []


def test_there_are_samples_of_every_kind() -> None:
    ids = {str(one.id).partition("/")[0] for one in sample_runs()}
    assert {"examples", "docs"} <= ids


def test_the_full_run_has_every_field() -> None:
    for path, _ in LEAVES:
        if not path.startswith("spec.resources.scratch."):
            assert got(FULL, path) is not None, path


def test_a_run_with_everything_resolved_is_accepted_with_its_nulls() -> None:
    document = parse_run(DOCUMENT).model_dump(mode="json", by_alias=True)
    assert RUNS.problems(document) == []


@pytest.mark.parametrize("path", [path for path, _ in LEAVES if not path.endswith(".0")])
def test_null_is_taken_as_by_the_model(path: str) -> None:
    if ".scratch." in path:
        return
    document = put(FULL, path, None)
    in_a_map = path.startswith("spec.rerun.")  # the server drops it; the model never sees it
    required = path in REQUIRED
    required |= path.startswith(("spec.annotations.classes.0", "spec.synthesizer.quotas.0"))
    assert bool(RUNS.problems(document)) == required
    if not in_a_map and not required:
        kept = RUNS.stored(document)
        # What fits a value elsewhere may not fit its default: then neither is taken.
        assert refused_by_model(document) == refused_by_model(kept)
        if not refused_by_model(document):
            assert parse_run(kept) == parse_run(document)


def scratch_of(path: str) -> dict[str, Any]:
    """The full run with the kind of scratch the path is about."""
    kind = path.removeprefix("spec.resources.scratch.").partition(".")[0]
    fields = {"storageClass": "fast", "size": "10Gi"}
    return put(
        FULL,
        "spec.resources.scratch",
        {kind: {"sizeLimit": "1Gi"} if kind == "emptyDir" else fields},
    )


def base_of(path: str) -> dict[str, Any]:
    """The full run; of the kinds of scratch the one the path is about."""
    return scratch_of(path) if ".scratch." in path else FULL


@pytest.mark.parametrize(("path", "node"), LEAVES, ids=by_path)
def test_what_the_models_refuse_the_schema_refuses(path: str, node: dict[str, Any]) -> None:
    base = base_of(path)
    values = list(bad_values(node, got(base, path)))
    assert len(values) >= 2, "nothing is wrong for it?"
    for value in values:
        document = put(base, path, value)
        assert refused_by_model(document), value
        wrong = RUNS.problems(document)
        assert wrong, value
        assert all(one.startswith(path) for one in wrong), wrong


@pytest.mark.parametrize(("path", "node"), LEAVES, ids=by_path)
def test_what_is_within_the_models_bounds_the_schema_takes(path: str, node: dict[str, Any]) -> None:
    for value in good_values(node):
        assert RUNS.problems(put(base_of(path), path, value)) == [], value


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from([path for path, node in LEAVES if good_values(node)]).filter(
            lambda path: ".scratch." not in path
        ),
        st.integers(0, 20),
        max_size=8,
    ),
    st.sets(st.sampled_from([path for path, _ in LEAVES if path.count(".") == 2]), max_size=8),
)
def test_what_the_models_take_the_schema_takes(values: dict[str, int], gone: set[str]) -> None:
    bounds = dict(LEAVES)
    document = FULL
    for path, number in values.items():
        good = good_values(bounds[path])
        document = put(document, path, good[number % len(good)])
    for path in gone:
        document = without(document, path)
    if not refused_by_model(document):
        assert RUNS.problems(document) == []


def test_whole_numbers_are_numbers_too() -> None:
    for value in (1, 1.0, 1.5):
        document = changed("spec.ganTrainer.kimg", value)
        assert not refused_by_model(document)
        assert RUNS.problems(document) == []


OBJECTS = sorted(
    {path.rpartition(".")[0] for path, _ in LEAVES if ".scratch." not in path}
    | {"spec.resources.scratch.ephemeral", "spec.resources.scratch"}
)


@pytest.mark.parametrize("path", OBJECTS)
def test_unknown_fields_are_refused_by_both(path: str) -> None:
    if not isinstance(got(FULL, path), dict):
        return
    document = put(FULL, f"{path}.noSuchField", 1)
    assert refused_by_model(document)
    assert any("noSuchField" in one for one in RUNS.problems(document))


@pytest.mark.parametrize("path", ["spec.slides", "spec.annotations", "spec.slides.uri"])
def test_what_is_required_is_required_by_both(path: str) -> None:
    document = without(DOCUMENT, path)
    assert refused_by_model(document)
    assert RUNS.problems(document)


def test_a_status_with_everything_is_accepted() -> None:
    digest = "a" * 64
    end = EndStatus(job="j", attempt=1, reason="bug", message="m" * 1000, at="2026-11-24T00:00:00Z")
    status = RunStatus(
        observed_generation=2**40,
        phase="Running",
        stage="tiler",
        progress="1 of 2",
        message="m",
        started_at="2026-11-24T00:00:00Z",
        macro_dice=1,
        pinned=PinnedStatus(
            slides_key="k",
            slides_digest=digest,
            folds=InputRef(stage="tiler", key=digest, content_digest=digest),
        ),
        stages=[StageStatus(name="tiler", failures={"bug": 1}, last_end=end, kind="parts")],
        gates=[
            GateVerdict(name="maxKid", measured=0.5, limit=1, passed=True, sentence="s"),
            GateVerdict(name="minPairs", limit=1, sentence="s"),
        ],
        conditions=[
            ConditionStatus(type="Started", status="True", reason="r", last_transition_time="2026")
        ],
    )
    document = DOCUMENT | {"status": status.dump()}
    assert RUNS.problems(document) == []
    assert RUNS.problems(DOCUMENT | {"status": RunStatus().dump()}) == []
    assert RUNS.problems(DOCUMENT | {"status": {"phase": "Sleeping"}})


# Rules


def test_every_rule_says_what_it_wants() -> None:
    found = list(rules(SCHEMA))
    assert len(found) > 90
    for path, rule in found:
        assert set(rule) == {"rule", "message"}
        assert "[]" not in path, "a rule for each item of a list has no counterpart before"
        assert len(rule["message"]) <= 2048
        assert "matches" not in rule["rule"], "costs as much as the text is long"


@pytest.mark.parametrize("given", list(itertools.product(("absent", "null", "given"), repeat=3)))
def test_scratch_is_exactly_one_of_three_as_in_the_model(given: tuple[str, ...]) -> None:
    scratch: dict[str, Any] = {
        name: {} if how == "given" else None
        for name, how in zip(("emptyDir", "ephemeral", "claim"), given, strict=True)
        if how != "absent"
    }
    wrong = RUNS.problems(changed("spec.resources.scratch", scratch))
    words = "give exactly one of emptyDir, ephemeral and claim"
    if given.count("given") == 1:
        ScratchConfig.model_validate(scratch, by_alias=True)
        assert not wrong
    else:
        with pytest.raises(ValidationError, match=words):
            ScratchConfig.model_validate(scratch, by_alias=True)
        assert wrong == [f"spec.resources.scratch: {words}"]


@pytest.mark.parametrize("name", ["a", "a" * 52, "a" * 53, "a.b", "a-1", "1a", "skin-256"])
def test_names_are_those_of_the_model(name: str) -> None:
    # Other names than those of DNS never come to the rules.
    document = changed("metadata.name", name)
    assert bool(RUNS.problems(document)) == refused_by_model(document)


def updated(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    return RUNS.problems(after, before)


def message(path: str) -> str:
    return f"{path} cannot change after the run was made; make another run"


def frozen(path: str) -> str:
    """The field that the rule for this path is about: a section's, or one right below spec."""
    parts = path.split(".")
    return ".".join(parts[: 2 if parts[1] == "rerun" else 3])


@pytest.mark.parametrize("document", [DOCUMENT, FULL], ids=["small", "full"])
def test_what_stays_the_same_may_be_written_again(document: dict[str, Any]) -> None:
    assert updated(document, document) == []
    resolved = parse_run(document).model_dump(mode="json", by_alias=True)
    assert updated(resolved, resolved) == []  # with all its nulls


@pytest.mark.parametrize("path", [path for path, _ in LEAVES if path.split(".")[1] not in MUTABLE])
def test_no_other_field_can_change_appear_or_go(path: str) -> None:
    value = got(FULL, path)
    others: dict[type, Any] = {bool: not value, str: f"{value}x", list: [], dict: {}}
    changes = [(FULL, put(FULL, path, others.get(type(value), 0) if value else 1))]
    if not path.endswith(".0") and path not in REQUIRED:
        gone = without(FULL, path)
        changes += [(FULL, gone), (gone, FULL)]
    expected = f"{frozen(path).rpartition('.')[0]}: {message(frozen(path))}"
    for before, after in changes:
        # The rules alone: whether the other value is allowed is not what this is about.
        assert RUNS.broken_rules(after, before) == [expected]


@pytest.mark.parametrize(
    "path", ["tiler", "ganTrainer", "candidates", "extractor", "classifier", "rerun"]
)
def test_no_section_can_appear_or_go(path: str) -> None:
    gone = without(FULL, f"spec.{path}")
    for old, new in ((FULL, gone), (gone, FULL)):
        assert f"spec: {message(f'spec.{path}')}" in updated(old, new)
    # Null right there is dropped by the server, so it is the same as absent.
    assert updated(gone, put(gone, f"spec.{path}", None)) == []


def test_null_may_be_written_for_absent_and_back() -> None:
    absent = DOCUMENT
    null = changed("spec.tiler.stride", None)
    assert RUNS.stored(null)["spec"]["tiler"]["stride"] is None
    for old, new in ((absent, null), (null, absent), (null, null)):
        assert updated(old, new) == []
    assert updated(null, changed("spec.tiler.stride", 32)) == [
        f"spec.tiler: {message('spec.tiler.stride')}"
    ]


def test_suspend_retry_resources_and_gates_may_change() -> None:
    for path, value in (
        ("spec.gates", {}),
        ("spec.gates.minMacroDice", 0.7),
        ("spec.gates.minClassIou", {"dermis": 0.1}),
        ("spec.suspend", True),
        ("spec.retry", "again"),
        ("spec.resources", {}),
        ("spec.resources.threads", 4),
        ("spec.resources.scratch", {"claim": {}}),
        ("spec.resources.pods", {"tiler": {"parts": 3}}),
    ):
        after = changed(path, value)
        assert updated(DOCUMENT, after) == []
        assert updated(after, DOCUMENT) == []
    for name in MUTABLE:
        after = without(FULL, f"spec.{name}")
        if name == "resources":
            after = put(after, "spec.resources", {"store": got(FULL, "spec.resources.store")})
        assert updated(FULL, after) == []


def test_the_store_stays_the_one_the_artifacts_are_in() -> None:
    refused = [f"spec: {message('spec.resources.store')}"]
    other = changed("spec.resources.store", "other")
    for old, new in ((DOCUMENT, other), (other, DOCUMENT), (FULL, without(FULL, "spec.resources"))):
        assert updated(old, new) == refused
    null = changed("spec.resources.store", None)
    assert updated(DOCUMENT, null) == updated(null, DOCUMENT) == []


def test_the_status_may_change_whatever_the_spec_holds() -> None:
    null = changed("spec.tiler", {"tileSize": 64, "stride": None, "maxPen": None})
    assert updated(null, null | {"status": RunStatus(phase="Running").dump()}) == []
