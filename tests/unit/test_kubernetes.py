"""The manifests agree with the code and take every right away. `make deploy-check` asks Kubernetes' schemas."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from config.settings import PREFIX, Settings
from streams.watchdog import SHUTDOWN_SECONDS
from tests.tables import ROOT

KUBERNETES: Final = ROOT / "deploy" / "kubernetes"
OVERLAYS: Final = sorted(path.name for path in (KUBERNETES / "overlays").iterdir())
#: What they run, by the name that is the component's.
PROCESSES: Final = {"worker": "worker", "dispatcher": "dispatch", "web": "serve", "migrate": "migrate"}
_SECRETS: Final = {name for name, field in Settings.model_fields.items() if "SecretStr" in str(field.annotation)}


def _documents(folder: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(folder.glob("*.yaml")):
        if path.name != "kustomization.yaml":
            yield from yaml.safe_load_all(path.read_text(encoding="utf-8"))


def _settings(folder: Path) -> dict[str, str]:
    lines = (folder / "settings.env").read_text(encoding="utf-8").splitlines()
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


@cache
def _base() -> list[dict[str, Any]]:
    return list(_documents(KUBERNETES / "base"))


def _of(kind: str) -> dict[str, dict[str, Any]]:
    return {document["metadata"]["name"]: document for document in _base() if document["kind"] == kind}


def _pods() -> dict[str, dict[str, Any]]:
    """The pods' specifications, by component."""
    pods = {}
    for document in [*_of("Deployment").values(), *_of("Job").values()]:
        template = document["spec"]["template"]
        component = template["metadata"]["labels"]["app.kubernetes.io/component"]
        assert document["metadata"]["name"] == f"bidden-{component}"
        pods[component] = template["spec"]
    return pods


def _container(component: str) -> dict[str, Any]:
    (container,) = _pods()[component]["containers"]
    return dict(container)


def test_every_process_is_there() -> None:
    """Each runs its command from the one image."""
    assert {name: _container(name)["args"][0] for name in _pods()} == PROCESSES
    assert {_container(name)["image"] for name in PROCESSES} == {"bidden"}


@pytest.mark.parametrize("component", PROCESSES)
def test_no_process_has_rights(component: str) -> None:
    """As the restricted Pod Security Standard asks. Besides, only volumes are written, and there is no token."""
    pod, container = _pods()[component], _container(component)
    assert pod["securityContext"]["runAsNonRoot"] is True
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
    assert f"USER {pod['securityContext']['runAsUser']}:{pod['securityContext']['runAsGroup']}\n" in dockerfile
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert (pod["automountServiceAccountToken"], pod["serviceAccountName"]) == (False, "bidden")
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes)
    assert all(set(volume) == {"name", "emptyDir"} and volume["emptyDir"]["sizeLimit"] for volume in volumes.values())


@pytest.mark.parametrize("component", PROCESSES)
def test_every_process_has_resources(component: str) -> None:
    """Requests, and a limit of memory; none of the CPU, which would make a worker stall that is not stuck."""
    resources = _container(component)["resources"]
    assert set(resources["requests"]) == {"cpu", "memory"}
    assert set(resources["limits"]) == {"memory"}


@pytest.mark.parametrize("component", sorted(set(PROCESSES) - {"migrate"}))
def test_every_process_that_stays_has_probes(component: str) -> None:
    """Alive and ready are asked of the process itself, at the port of its metrics."""
    container = _container(component)
    (metrics,) = (port["containerPort"] for port in container["ports"] if port["name"] == "metrics")
    assert str(metrics) == _settings(KUBERNETES / "base")[f"{PREFIX}METRICS_PORT"]
    assert container["livenessProbe"]["httpGet"] == container["startupProbe"]["httpGet"]
    assert container["livenessProbe"]["httpGet"] == {"path": "/livez", "port": "metrics"}
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "metrics"}


def test_a_worker_has_time_to_finish() -> None:
    """FM-08: its grace is longer than its own shutdown and the rescue after it."""
    assert _pods()["worker"]["terminationGracePeriodSeconds"] >= SHUTDOWN_SECONDS + 5 + 5


def test_the_journal_is_on_a_volume() -> None:
    """It outlives the container, and the worker looks for it there."""
    container = _container("worker")
    (folder,) = (entry["value"] for entry in container["env"] if entry["name"] == f"{PREFIX}STATE_DIR")
    assert {"name": "state", "mountPath": folder} in container["volumeMounts"]


@pytest.mark.parametrize("component", PROCESSES)
def test_settings_and_secrets_exist(component: str) -> None:
    """What a process is given is a setting. Secrets come from the Secret by reference, and are nowhere else."""
    fields = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    for entry in _container(component)["env"]:
        assert entry["name"] in fields
        reference = entry.get("valueFrom", {}).get("secretKeyRef")
        assert (reference is None) == (entry["name"] == f"{PREFIX}STATE_DIR")
        assert reference is None or reference["name"] == "bidden"
    for folder in (KUBERNETES / "base", *(KUBERNETES / "overlays" / name for name in OVERLAYS)):
        found = set(_settings(folder))
        assert found <= fields, folder
        assert not found & {f"{PREFIX}{name.upper()}" for name in _SECRETS}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_overlays_are_settings_that_load(overlay: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The settings of an overlay, with a password where they ask for one, are accepted together."""
    for name, value in {
        **_settings(KUBERNETES / "base"),
        **_settings(KUBERNETES / "overlays" / overlay),
        f"{PREFIX}KAFKA_SASL_USERNAME": "bidden",
        f"{PREFIX}KAFKA_SASL_PASSWORD": "sesame",
    }.items():
        monkeypatch.setenv(name, value)
    assert Settings.load(directory=tmp_path).base_url == "https://invite.example.org"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_images_have_this_version(overlay: str) -> None:
    """An overlay names the image of this release, never `latest`."""
    kustomization = yaml.safe_load((KUBERNETES / "overlays" / overlay / "kustomization.yaml").read_text("utf-8"))
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert version is not None
    assert [(image["name"], image["newTag"]) for image in kustomization["images"]] == [("bidden", version[1])]


@pytest.mark.parametrize("folder", ["base", *(f"overlays/{name}" for name in OVERLAYS)])
def test_every_file_is_a_resource(folder: str) -> None:
    """A manifest that no kustomization names would be applied by nobody."""
    there = {path.name for path in (KUBERNETES / folder).glob("*.yaml")} - {"kustomization.yaml"}
    kustomization = yaml.safe_load((KUBERNETES / folder / "kustomization.yaml").read_text(encoding="utf-8"))
    assert there == {name for name in kustomization["resources"] if name.endswith(".yaml")}


def test_selectors_select() -> None:
    """Services, budgets and policies mean pods that exist, and ports that these have."""
    labels = {
        document["metadata"]["name"]: document["spec"]["template"]["metadata"]["labels"]
        for document in [*_of("Deployment").values(), *_of("Job").values()]
    }
    for document in _base():
        spec = document.get("spec", {})
        selector = spec.get("podSelector", spec.get("selector"))
        if selector is None or document["kind"] == "Job":
            continue
        wanted = selector if document["kind"] == "Service" else selector["matchLabels"]
        chosen = [name for name, has in labels.items() if wanted.items() <= has.items()]
        assert chosen, document["metadata"]["name"]
        if document["kind"] in {"Deployment", "PodDisruptionBudget"}:
            assert chosen == [document["metadata"]["name"]]
    names = {port["name"] for port in _container("web")["ports"]}
    (port,) = _of("Service")["bidden-web"]["spec"]["ports"]
    assert port["targetPort"] in names
    for overlay in OVERLAYS:
        for document in _documents(KUBERNETES / "overlays" / overlay):
            if document["kind"] == "Ingress":
                service = document["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]
                assert service == {"name": "bidden-web", "port": {"name": port["name"]}}


def test_what_is_not_allowed_is_denied() -> None:
    """One policy denies all; mail leaves from workers and the site only; metrics are for the monitoring alone."""
    policies = _of("NetworkPolicy")
    everything = policies["bidden-nothing"]["spec"]
    assert everything["policyTypes"] == ["Ingress", "Egress"]
    assert not {"ingress", "egress"} & set(everything)
    (mail,) = policies["bidden-mail"]["spec"]["podSelector"]["matchExpressions"]
    assert mail["values"] == ["worker", "web"]
    doors = {
        port["port"]: rule["from"]
        for policy in policies.values()
        for rule in policy["spec"].get("ingress", [])
        for port in rule["ports"]
    }
    assert set(doors) == {"metrics", "http"}
    assert doors["metrics"] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]


def test_a_drain_waits_for_nothing_that_is_not_ready() -> None:
    """Each kind that stays has a budget, which lets an unhealthy pod go."""
    budgets = _of("PodDisruptionBudget")
    assert set(budgets) == set(_of("Deployment"))
    for budget in budgets.values():
        assert budget["spec"]["maxUnavailable"] == 1
        assert budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def test_workers_are_scaled_by_what_they_read() -> None:
    """KEDA asks the same brokers for the group and topic of the settings, and starts no worker without a partition."""
    folder = KUBERNETES / "overlays" / "production"
    documents = {document["kind"]: document for document in _documents(folder)}
    scaled, given = documents["ScaledObject"]["spec"], _settings(folder)
    (trigger,) = scaled["triggers"]
    defaults = Settings.model_fields
    assert trigger["type"] == "kafka"
    assert trigger["metadata"]["bootstrapServers"] == given[f"{PREFIX}KAFKA_BOOTSTRAP"]
    assert trigger["metadata"]["consumerGroup"] == defaults["group"].default
    assert trigger["metadata"]["topic"] == f"{defaults['topic_prefix'].default}.invitations.v1"
    assert not {f"{PREFIX}GROUP", f"{PREFIX}TOPIC_PREFIX"} & set(given)
    assert str(scaled["maxReplicaCount"]) == given[f"{PREFIX}PARTITIONS"]
    assert scaled["scaleTargetRef"]["name"] in _of("Deployment")
    assert "replicas" not in _of("Deployment")["bidden-worker"]["spec"]
    references = documents["TriggerAuthentication"]["spec"]["secretTargetRef"]
    assert {reference["name"] for reference in references} == {"bidden"}
    assert trigger["authenticationRef"]["name"] == documents["TriggerAuthentication"]["metadata"]["name"]


def test_the_source_is_read_by_one_process() -> None:
    """A component, for who has a source: one pod as restricted as the others, with the file and the address."""
    folder = KUBERNETES / "components" / "source"
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text(encoding="utf-8"))
    (document,) = _documents(folder)
    assert (kustomization["kind"], kustomization["resources"]) == ("Component", ["sync.yaml"])
    assert (document["spec"]["replicas"], document["spec"]["strategy"]) == (1, {"type": "Recreate"})
    pod = document["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["args"][:2] == ["sync", "--every"]
    base = _pods()["dispatcher"]
    for name in ("securityContext", "automountServiceAccountToken", "serviceAccountName"):
        assert pod[name] == base[name]
    assert container["securityContext"] == _container("dispatcher")["securityContext"]
    assert set(container["resources"]["limits"]) == {"memory"}
    given = {entry["name"]: entry for entry in container["env"]}
    assert given[f"{PREFIX}SOURCE_URL"]["valueFrom"]["secretKeyRef"] == {"name": "bidden", "key": "source-url"}
    # A file that writes nothing needs no such user.
    writer = {"name": "bidden", "key": "source-writer-url", "optional": True}
    assert given[f"{PREFIX}SOURCE_WRITER_URL"]["valueFrom"]["secretKeyRef"] == writer
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes)
    (mounted,) = (mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == "source")
    assert given[f"{PREFIX}SOURCE_FILE"]["value"].startswith(f"{mounted}/")
