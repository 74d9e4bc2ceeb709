"""All commands of `bidden` by their full name, those of its groups included."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import click

from cli.main import cli


def _leaves(group: click.Group, path: str = "") -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from _leaves(command, f"{path}{name} ")
        else:
            yield path + name, command


COMMANDS: Final = dict(_leaves(cli))
