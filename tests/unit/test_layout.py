"""The layout: generic folder names, so it is proven that each package is the repository's own."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ["cli", "config", "db", "demo", "embedded", "mail", "monitoring", "producers", "schemas", "streams", "web"]


@pytest.mark.parametrize("name", PACKAGES)
def test_each_package_is_the_repositorys_own(name: str) -> None:
    """No other package of that name is imported instead, here or from anywhere else on this machine."""
    assert Path(str(importlib.import_module(name).__file__)).resolve() == ROOT / name / "__init__.py"


def test_from_any_folder(tmp_path: Path) -> None:
    """The installed command finds the same packages, wherever it is started."""
    code = f"import {', '.join(PACKAGES)}\nprint(*(m.__file__ for m in ({', '.join(PACKAGES)})), sep='\\n')"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60
    )
    assert [Path(line).resolve().parent for line in done.stdout.splitlines()] == [ROOT / name for name in PACKAGES]


@pytest.mark.parametrize("name", PACKAGES)
def test_each_package_says_what_it_is_for(name: str) -> None:
    """Every module begins with a docstring."""
    for path in (ROOT / name).rglob("*.py"):
        if "migrations" not in path.parts or path.name != "__init__.py":
            assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), path


def test_modules_are_small() -> None:
    """About 300 lines at most."""
    long = {
        str(path.relative_to(ROOT)): lines
        for name in PACKAGES
        for path in (ROOT / name).rglob("*.py")
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > 310
    }
    assert long == {}
