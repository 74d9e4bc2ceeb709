"""Alerts, dashboard and runbooks fit each other, the metrics and the commands; and Prometheus accepts them."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from cli.main import cli
from config import metrics
from tests.tables import ROOT

RULES = ROOT / "deploy" / "prometheus" / "rules.yml"
RULES_TEST = ROOT / "deploy" / "prometheus" / "rules_test.yml"
DASHBOARD = ROOT / "deploy" / "grafana" / "dashboard.json"
RUNBOOKS = ROOT / "docs" / "how-to" / "runbooks.md"
#: Not ours: of the scrape itself, and of any process.
_OTHERS = {"up", "process_cpu_seconds_total"}
_NAME = re.compile(r"\b(?:bidden|messaging|process)_[a-z_]+\b|\bup\b")
_PARTS = ("_bucket", "_count", "_sum")


def alerts() -> list[dict[str, Any]]:
    """The alerting rules."""
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    """The panels that show something."""
    return [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]


def expressions() -> list[str]:
    """Every query of rules and dashboard."""
    shown = [target["expr"] for panel in panels() for target in panel["targets"]]
    return [rule["expr"] for rule in alerts()] + shown


def runbooks() -> dict[str, str]:
    """The text of each runbook, by its heading."""
    return dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", RUNBOOKS.read_text(), re.MULTILINE | re.DOTALL))


def commands(text: str) -> list[list[str]]:
    """The commands in the code blocks of a runbook."""
    blocks = re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [shlex.split(line, comments=True) for block in blocks for line in block.splitlines()]


@pytest.mark.parametrize("expression", expressions())
def test_each_metric_exists(expression: str) -> None:
    """Each name in a query is defined, with the labels that the query asks by."""
    without_labels = re.sub(r"\{[^}]*\}|\b(by|without) \([^)]*\)", "", expression)
    names = set(_NAME.findall(without_labels)) - _OTHERS
    known = set(metrics.TABLE.definitions)
    for name in names:
        base = next((name.removesuffix(part) for part in _PARTS if name.endswith(part)), name)
        assert name in known or (base in known and metrics.TABLE.definitions[base].kind == "histogram"), name
    asked = {label for labels in re.findall(r"\bby \(([^)]*)\)", expression) for label in re.split(r",\s*", labels)}
    asked |= set(re.findall(r"[{,](\w+)[=!]", expression))
    of_metrics = {label for found in metrics.TABLE.definitions.values() for label in found.labels}
    assert asked <= of_metrics | {"le", "job", "instance"}


def test_the_dashboard_shows_every_metric() -> None:
    """All but what is of no interest over time."""
    text = " ".join(target["expr"] for panel in panels() for target in panel["targets"])
    shown = set(_NAME.findall(text))
    shown |= {name.removesuffix(part) for name in shown for part in _PARTS}
    hidden = {"bidden_build_info", "bidden_committed_offset", "bidden_samples_failed_total"}
    assert set(metrics.TABLE.definitions) - shown == hidden


def test_panels_do_not_overlap() -> None:
    """Each place of the grid holds one panel."""
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        at = panel["gridPos"]
        cells = {(at["x"] + dx, at["y"] + dy) for dx in range(at["w"]) for dy in range(at["h"])}
        assert not cells & taken
        assert at["x"] + at["w"] <= 24
        taken |= cells
    ids = [panel["id"] for panel in json.loads(DASHBOARD.read_text())["panels"]]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])
def test_each_alert_has_a_runbook(rule: dict[str, Any]) -> None:
    """Severity, summary, time, and a link to a section that has commands."""
    name = rule["alert"]
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert rule["annotations"]["summary"]
    assert rule["for"]
    assert rule["annotations"]["runbook_url"] == f"docs/how-to/runbooks.md#{name.lower()}"
    assert commands(runbooks()[name])


def test_each_runbook_has_an_alert() -> None:
    """In the same order, and none for an alert that is gone."""
    assert list(runbooks()) == [rule["alert"] for rule in alerts()]


@pytest.mark.parametrize("name", list(runbooks()))
def test_runbooks_name_commands_that_exist(name: str) -> None:
    """Each `bidden` command of a runbook can be parsed, with its arguments and options."""
    for words in commands(runbooks()[name]):
        if words[0] != "bidden":
            assert shutil.which(words[0]), words
            continue
        values = {"$EVENT": "42", "$BATCH": "7", "$LETTER": "0:17"}
        command: click.Command = cli
        rest = [values.get(word, word) for word in words[1:]]
        while isinstance(command, click.Group):
            command = command.commands[rest.pop(0)]
        command.make_context(words[1], rest)


def _promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Prometheus' own check. Skipped where it is not installed; the gate installs it."""
    tool = os.environ.get("BIDDEN_TEST_PROMTOOL") or shutil.which("promtool")
    if tool is None:
        pytest.skip("no promtool: install the package `prometheus`, or set BIDDEN_TEST_PROMTOOL")
    return subprocess.run([tool, *map(str, arguments)], capture_output=True, text=True, check=False)


def test_prometheus_accepts_the_rules() -> None:
    """`promtool check rules`."""
    done = _promtool("check", "rules", RULES)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_rules_fire_and_stay_silent() -> None:
    """`promtool test rules`: each alert fires on its series, none where all is well or a sending rate is waited for."""
    done = _promtool("test", "rules", RULES_TEST)
    assert done.returncode == 0, done.stdout + done.stderr
    tested = {
        case["alertname"]
        for test in yaml.safe_load(RULES_TEST.read_text())["tests"]
        for case in test.get("alert_rule_test", ())
        if case["exp_alerts"]
    }
    assert tested == {rule["alert"] for rule in alerts()}
