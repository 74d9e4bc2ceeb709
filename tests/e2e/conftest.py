"""Fixtures: a site with its dispatcher and worker, and users in browsers."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from config.settings import Settings
from db import accounts
from db.accounts import AccountRole
from db.connect import Connection
from embedded import ports
from embedded.mail_server import MailServer
from tests.acceptance.books import Books
from tests.acceptance.processes import Bidden, eventually
from tests.e2e.people import PASSWORD, Person, Stage
from web.auth import tokens

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def find_chromium() -> str | None:
    """The path of a Chromium: BIDDEN_TEST_CHROMIUM, or the first found on PATH."""
    named = os.environ.get("BIDDEN_TEST_CHROMIUM")
    return named or next((found for found in map(shutil.which, _NAMES) if found), None)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A browser. Module scope, because its thread can run no other event loop while it runs."""
    path = find_chromium()
    if path is None:
        pytest.skip("no Chromium here: install one, or name it in BIDDEN_TEST_CHROMIUM")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def stage(
    chromium: Browser, settings: Settings, conn: Connection, mail_sink: MailServer, tmp_path: Path
) -> Iterator[Stage]:
    """The site, a dispatcher, and a worker with few mails in flight, so that a test can act in the middle."""
    port = ports.choose({"web": None}, {})["web"]
    address = f"http://127.0.0.1:{port}"
    env = {"BIDDEN_BASE_URL": address, "BIDDEN_SMTP_CONNECTIONS": "4", "BIDDEN_HANDOVER_WINDOW": "4"}
    with ExitStack() as stack:
        bidden = stack.enter_context(Bidden(settings, tmp_path))
        site = bidden.start("admin", "--port", str(port), "--json", **env)
        bidden.dispatcher()
        bidden.worker(**env).ready()
        eventually(lambda: bool(site.logged("the web application is up")), "the site is up")
        yield Stage(address, chromium, bidden, Books(conn, mail_sink), stack)
        assert not [line for line in site.log if line.get("level") in ("error", "critical")], site.log_tail()


def account(conn: Connection, email: str, role: str, *chapters: int) -> None:
    """An account with the usual password."""
    accounts.add(
        conn,
        email=email,
        name=email.partition("@")[0].capitalize(),
        role=AccountRole(role),
        chapters=chapters,
        password_hash=tokens.hash_password(PASSWORD),
    )


@pytest.fixture
def ada(stage: Stage) -> Person:
    """An admin, signed in."""
    account(stage.books.conn, "ada@bidden.example", "admin")
    return stage.person("ada@bidden.example")
