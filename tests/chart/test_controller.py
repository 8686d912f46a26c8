"""The controller's objects: what it is told, what it can read, when it is started anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from chart.helms import Document, Helm, Made, Refused
from chart.test_matrix import settings_of
from hdgan.controller.settings import (
    AllowConfig,
    ImageConfig,
    NamespaceConfig,
    Settings,
    StagePodConfig,
    StoreConfig,
)

MINIMAL: Document = {"stores": {"default": {"uri": "s3://bucket/hdgan"}}}
HEALTH = 8081


def one(made: list[Made], template: str) -> Document:
    """The only object of a template."""
    (found,) = [each.document for each in made if each.template == template]
    return found


def pod_of(made: list[Made]) -> Document:
    """The controller's pod."""
    spec: Document = one(made, "controller/deployment.yaml")["spec"]["template"]["spec"]
    return spec


def readable(pod: Document) -> set[str]:
    """Files in the folder with the controller's settings."""
    (volume,) = [each for each in pod["volumes"] if each["name"] == "files"]
    found = set()
    for source in volume["projected"]["sources"]:
        (content,) = source.values()
        items = content.get("items") or [{"path": "settings.yaml"}]
        found |= {f"/etc/hdgan/{item['path']}" for item in items}
    return found


@pytest.mark.parametrize("file", ["minimal", "namespaces", "workload-identity", "everything"])
def test_files_its_settings_name_are_there(newest: Helm, file: str, tmp_path: Path) -> None:
    made = newest.template(file)
    files = readable(pod_of(made))
    assert files == readable(one(made, "tests/check.yaml")["spec"])
    container = pod_of(made)["containers"][0]
    assert container["args"] == ["/etc/hdgan/settings.yaml"]
    assert container["volumeMounts"][0]["mountPath"] == "/etc/hdgan"
    named = {"/etc/hdgan/settings.yaml"}
    for space in settings_of(made, tmp_path).namespaces:
        for store in space.stores.values():
            if store.credentials is not None:
                for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
                    named.add(f"{store.credentials}/{key}")
            if store.ca_file is not None:
                named.add(store.ca_file)
    assert files == named


def test_stores_of_namespaces_are_theirs(newest: Helm, tmp_path: Path) -> None:
    settings = settings_of(newest.template("namespaces"), tmp_path)
    by_name = {space.name: space.stores for space in settings.namespaces}
    assert set(by_name["nephrology"]) == {"default", "archive"}
    assert set(by_name["dermatology"]) == {"default"}
    shared, own = by_name["nephrology"]["default"], by_name["dermatology"]["default"]
    assert (shared.uri, own.uri) == ("s3://shared/hdgan", "s3://derm/runs")
    # Pods of both name a Secret of their namespace; the controller has one for each of them.
    assert shared.secret == own.secret == "hdgan-s3"
    assert shared.credentials == "/etc/hdgan/credentials/hdgan-s3"
    assert own.credentials == "/etc/hdgan/credentials/hdgan-s3-derm"
    identity = by_name["pathology-2"]["default"]
    assert identity.secret is None
    assert identity.credentials is None
    assert identity.sources == ["s3://slides-a/", "s3://slides-b/2026/"]


def test_what_runs_may_ask_for_is_said_by_namespace(newest: Helm, tmp_path: Path) -> None:
    settings = settings_of(newest.template("namespaces"), tmp_path)
    own, common = settings.allow("dermatology"), settings.allow("nephrology")
    assert (own.priority_classes, own.gpu_resources) == (["batch"], ["amd.com/gpu"])
    assert (own.tolerations, own.node_selection, own.queues) == (True, False, [])
    assert (common.tolerations, common.node_selection, common.queues) == (False, True, ["gpus"])
    # Nothing said: what the controller takes for granted.
    settings = settings_of(newest.template("minimal"), tmp_path)
    assert settings.allow("hdgan") == AllowConfig()


def test_values_have_a_place_for_all_that_can_be_set() -> None:
    """Fields the chart makes itself; the others are passed on as they are."""
    assert set(NamespaceConfig.model_fields) == {"name", "stores", "allow"}
    assert {"secret", "credentials", "ca_file"} < set(StoreConfig.model_fields)
    assert "service_account" in StagePodConfig.model_fields
    assert set(ImageConfig.model_fields) == {"image", "pull_policy"}


def test_everything_that_can_be_said_arrives(newest: Helm, tmp_path: Path) -> None:
    settings = settings_of(newest.template("everything"), tmp_path)
    store = settings.namespaces[0].stores["default"]
    assert store.ca_config_map == "company-ca"
    assert store.ca_file == "/etc/hdgan/authorities/company-ca/ca.crt"
    assert (store.endpoint, store.region) == ("https://s3.example.org", "eu-west-1")
    assert store.checksums == "when_supported"
    assert settings.image_pull_secrets == ["registry", "registry.mirror"]
    assert settings.finished_job_seconds == 31_536_000
    assert settings.resync_seconds == 1000
    assert settings.scratch.claim is not None
    assert settings.scratch.claim.size == "500Gi"
    assert settings.election.lease_seconds == 15
    assert settings.election.name == "pathology-controller"
    assert settings.pod_security_context["runAsUser"] == 1234567
    images = {name: image.image for name, image in settings.images.items()}
    assert (
        images["tiler"] == f"registry.example.org/hdgan/hdgan-tiler@sha256:{'0123456789abcdef' * 4}"
    )
    assert images["ganTrainer"] == "registry.example.org/hdgan/mirror/hdgan/gan-trainer:2026.11"
    trainer = settings.pods["ganTrainer"]
    assert (trainer.gpus, trainer.memory, trainer.priority_class) == (8, "512Gi", "batch")
    assert trainer.affinity is not None
    # A stage's own proxy goes before the one of all.
    assert trainer.env["HTTPS_PROXY"] == "http://another.example.org:3128"
    assert settings.pods["tiler"].env["HTTPS_PROXY"] == "http://proxy.example.org:3128"
    assert (
        settings.pods["tiler"]
        .env["NO_PROXY"]
        .endswith(".cluster.example,s3.example.org,10.0.0.0/8")
    )
    assert settings.pods["tiler"].labels == {
        "app.kubernetes.io/instance": "hdgan",
        "owner": "pathology",
        "cost-centre": "4711",
    }
    assert (settings.pods["tiler"].parts, settings.pods["dataset"].parts) == (4, 1)


def test_texts_stay_texts(helm: Helm, tmp_path: Path) -> None:
    """Whatever YAML makes of them: values go through Helm's, the controller reads its own."""
    nasty = ["yes", "no", "on", "1e3", "0x10", "017", "1_000", "12:30:45", "2026-01-01", "null",
             "~", "", " lead", "a: b", "# no comment", "- x", "{{ .Values }}", "'", '"', "é\n\tü",
             "*a", "&a", "!tag", "=", "<<", ".5", "+1", "1.", "0o17", "true"]  # fmt: skip
    env = {f"V{number}": text for number, text in enumerate(nasty)}
    values = {**MINIMAL, "pods": {"tiler": {"env": env, "annotations": dict(env)}}}
    settings = settings_of(helm.template(values), tmp_path)
    assert settings.pods["tiler"].env == env
    assert settings.pods["tiler"].annotations == env


def test_large_numbers_stay_whole(helm: Helm, tmp_path: Path) -> None:
    made = helm.template(MINIMAL, "settings.finishedJobSeconds=31536000")
    assert settings_of(made, tmp_path).finished_job_seconds == 31_536_000
    made = helm.template({**MINIMAL, "settings": {"finishedJobSeconds": 31536000}})
    assert settings_of(made, tmp_path).finished_job_seconds == 31_536_000


def checksum(made: list[Made]) -> str:
    """The annotation by which pods are made anew."""
    template = one(made, "controller/deployment.yaml")["spec"]["template"]
    found: str = template["metadata"]["annotations"]["checksum/settings"]
    return found


def test_other_settings_start_other_pods(newest: Helm) -> None:
    before = checksum(newest.template(MINIMAL))
    same: list[Document] = [{"controller": {"replicas": 2}}, {"crds": {"enabled": False}}]
    other: list[Document] = [
        {"settings": {"maxActiveJobs": 3}},
        {"images": {"tiler": {"tag": "2"}}},
        {"watchNamespaces": [{"name": "team"}]},
        {"pods": {"tiler": {"cpu": "3"}}},
    ]
    assert {checksum(newest.template({**MINIMAL, **values})) for values in same} == {before}
    after = [checksum(newest.template({**MINIMAL, **values})) for values in other]
    assert len({before, *after}) == 1 + len(other)


def test_probes_and_metrics_share_the_health_port(newest: Helm) -> None:
    made = newest.template("minimal")
    container = pod_of(made)["containers"][0]
    assert container["ports"] == [{"name": "http", "containerPort": HEALTH}]
    for probe, path in (("livenessProbe", "/livez"), ("readinessProbe", "/readyz")):
        assert container[probe]["httpGet"] == {"path": path, "port": "http"}
    service = one(made, "controller/service.yaml")
    assert service["spec"]["ports"][0]["targetPort"] == "http"
    labels = one(made, "controller/deployment.yaml")["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    # What templates take for granted where the settings are silent.
    fields = Settings.model_fields
    assert fields["metrics_port"].default == 9464
    assert fields["cluster_domain"].default == "cluster.local"
    assert fields["health_port"].default == HEALTH


def test_it_is_asked_to_stop_in_time(newest: Helm) -> None:
    assert pod_of(newest.template("minimal"))["terminationGracePeriodSeconds"] == 60


def test_its_pod_is_as_asked_for(newest: Helm) -> None:
    pod = pod_of(newest.template("everything"))
    assert pod["priorityClassName"] == "system-cluster-critical"
    assert pod["nodeSelector"] == {"pool": "system"}
    assert pod["tolerations"] == [{"key": "system", "operator": "Exists"}]
    assert "podAntiAffinity" in pod["affinity"]
    (spread,) = pod["topologySpreadConstraints"]
    assert spread["topologyKey"] == "topology.kubernetes.io/zone"
    assert pod["imagePullSecrets"] == [{"name": "registry"}, {"name": "registry.mirror"}]
    container = pod["containers"][0]
    assert container["image"] == "other.example.org/hdgan-controller:1e3"
    assert container["imagePullPolicy"] == "Always"
    env = {each["name"]: each["value"] for each in container["env"]}
    assert env["TZ"] == "Europe/Berlin"
    # The API server is in the cluster; kubelets put its address in.
    assert env["NO_PROXY"].split(",")[0] == "$(KUBERNETES_SERVICE_HOST)"


def test_no_user_is_set_unless_asked_for(newest: Helm) -> None:
    """OpenShift assigns one, and refuses pods that ask for another."""
    for values, expected in (("minimal", None), ("everything", 1234567)):
        made = newest.template(values)
        assert pod_of(made)["securityContext"].get("runAsUser") == expected
        assert "runAsUser" not in pod_of(made)["containers"][0]["securityContext"]


def test_the_group_of_volumes_can_be_taken_away(helm: Helm, tmp_path: Path) -> None:
    """OpenShift refuses groups it has not assigned."""
    made = helm.template({**MINIMAL, "podSecurityContext": {"fsGroup": None}})
    assert settings_of(made, tmp_path).pod_security_context == {"fsGroup": None}
    assert "fsGroup" not in pod_of(made)["securityContext"]


@pytest.mark.parametrize(("replicas", "some"), [(0, False), (1, False), (2, True), (3, True)])
def test_drains_wait_for_a_replica_only_where_there_is_another(
    newest: Helm, replicas: int, some: bool
) -> None:
    made = newest.template("minimal", f"controller.replicas={replicas}")
    found = [each for each in made if each.template == "controller/poddisruptionbudget.yaml"]
    assert bool(found) is some
    spread = pod_of(made).get("topologySpreadConstraints", [])
    assert bool(spread) is some
    if some:
        labels = one(made, "controller/deployment.yaml")["spec"]["selector"]
        assert found[0].document["spec"]["selector"] == labels
        assert spread[0]["labelSelector"] == labels


def test_an_account_that_exists_can_be_used(newest: Helm) -> None:
    made = newest.template(
        "minimal", "serviceAccounts.controller.create=false", "serviceAccounts.controller.name=mine"
    )
    assert "controller/serviceaccount.yaml" not in {each.template for each in made}
    assert pod_of(made)["serviceAccountName"] == "mine"
    binding = one(made, "controller/rolebinding.yaml")
    assert binding["subjects"][0]["name"] == "mine"


def test_the_check_runs_as_the_controller(newest: Helm) -> None:
    for values in ("minimal", "everything"):
        made = newest.template(values)
        check = one(made, "tests/check.yaml")
        assert check["metadata"]["annotations"]["helm.sh/hook"] == "test"
        controller = pod_of(made)
        container = check["spec"]["containers"][0]
        assert container["command"][-2:] == ["hdgan.controller.check", "/etc/hdgan/settings.yaml"]
        for name in ("serviceAccountName", "volumes", "securityContext"):
            assert check["spec"][name] == controller[name]
        for name in ("image", "env", "volumeMounts"):
            assert container[name] == controller["containers"][0][name]
        # It is neither one of the replicas nor behind the Service.
        selector = one(made, "controller/deployment.yaml")["spec"]["selector"]["matchLabels"]
        assert not selector.items() <= check["metadata"]["labels"].items()


REFUSED: list[tuple[Document, str]] = [
    ({"stores": {}}, "namespace hdgan has no store.*stores.default.uri"),
    ({"watchNamespaces": [{"name": "a"}, {"name": "a"}]}, "watchNamespaces names a more than once"),
    ({"networkPolicies": {"enabled": True}}, "networkPolicies.store: without cidrs or to"),
    (
        {"networkPolicies": {"enabled": True, "store": {"cidrs": ["10.0.0.0/8"]}}},
        "networkPolicies.apiServer.cidrs: without it",
    ),
    (
        {"monitoring": {"prometheusRule": {"enabled": True}}},
        "monitoring.prometheusRule: its alerts",
    ),
]


@pytest.mark.parametrize(("values", "words"), REFUSED)
def test_what_cannot_work_is_refused_in_words(helm: Helm, values: Any, words: str) -> None:
    with pytest.raises(Refused, match=words):
        helm.template({**MINIMAL, **values})


def test_a_proxy_with_a_password_stays_in_its_secret(helm: Helm, tmp_path: Path) -> None:
    values = {
        **MINIMAL,
        "proxy": {"existingSecret": "proxy", "noProxy": "s3.example.org"},
        "controller": {"envSecrets": ["more"]},
        "pods": {"tiler": {"envSecrets": ["tiler-only"]}},
    }
    made = helm.template(values)
    for pod in (pod_of(made), one(made, "tests/check.yaml")["spec"]):
        container = pod["containers"][0]
        secrets = [source["secretRef"]["name"] for source in container["envFrom"]]
        assert secrets == ["more", "proxy"]
        names = {each["name"]: each["value"] for each in container["env"]}
        assert names["NO_PROXY"].endswith(",s3.example.org")
        assert not {"HTTP_PROXY", "HTTPS_PROXY"} & set(names)
    settings = settings_of(made, tmp_path)
    assert settings.pods["tiler"].env_secrets == ["tiler-only", "proxy"]
    assert settings.pods["dataset"].env_secrets == ["proxy"]
    assert settings.pods["dataset"].env["NO_PROXY"].endswith(",s3.example.org")
