"""The help of the command line: all commands by section, each with a summary, an example and its settings."""

from __future__ import annotations

import re

import pytest

from cli.main import cli
from tests.commands import COMMANDS
from tests.fuzzing import run


def test_the_help_lists_every_command_once() -> None:
    """By section and with a whole summary: nothing is cut off at 80 columns."""
    text = run("--help").out
    listed = re.findall(r"^  ([a-z]+)  +[A-Z].*[.?]$", text, re.MULTILINE)
    assert sorted(listed) == sorted(cli.commands)
    assert "..." not in text.partition("Options:")[2]


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_explains_itself(name: str) -> None:
    """Its help has a usage line, an example, the settings that it reads, and `--json`."""
    result = run(*name.split(), "--help")
    assert result.code == 0
    assert f"Usage: bidden {name}" in result.out
    assert "Example: bidden " in result.out
    assert "Environment: BIDDEN_" in result.out
    assert "--json" in result.out


def test_admin_is_an_alias_of_serve() -> None:
    """Both names are listed and run the same command with the same options."""
    serve, admin = COMMANDS["serve"], COMMANDS["admin"]
    assert (admin.callback, admin.params) == (serve.callback, serve.params)
    assert re.search(r"^  admin +Alias of `serve`\.$", run("--help").out, re.MULTILINE)
    assert run("serve", "--help").out == run("admin", "--help").out.replace(
        "Usage: bidden admin", "Usage: bidden serve"
    )
