"""Users in browsers: each has a browser context of their own, and its console errors fail the test."""

from __future__ import annotations

from contextlib import ExitStack

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect

from tests.acceptance.books import Books
from tests.acceptance.processes import TIMEOUT_SECONDS, Bidden

PASSWORD = "correct horse battery"
expect.set_options(timeout=TIMEOUT_SECONDS * 1000)


class Person:
    """A user. `page` is their browser page."""

    def __init__(self, address: str, context: BrowserContext) -> None:
        self.address = address
        self.errors: list[str] = []
        self.page: Page = context.new_page()
        self.page.set_default_timeout(TIMEOUT_SECONDS * 1000)
        self.page.on("console", self._on_console)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))

    def _on_console(self, message: ConsoleMessage) -> None:
        # The browser logs 4xx responses, too: tests check these themselves.
        if message.type in ("error", "warning") and "the server responded with a status of 4" not in message.text:
            self.errors.append(message.text)

    def sign_in(self, email: str, password: str = PASSWORD) -> None:
        """With the form."""
        self.go("/sign-in")
        self.page.get_by_label("E-mail address").fill(email)
        self.page.get_by_label("Password").fill(password)
        self.page.get_by_role("button", name="Sign in", exact=True).click()

    def go(self, path: str) -> None:
        """To an address."""
        self.page.goto(self.address + path)

    def press(self, name: str) -> None:
        """A button or a link, by its text."""
        self.page.get_by_role("button", name=name).or_(self.page.get_by_role("link", name=name)).first.click()

    def sees(self, *texts: str) -> None:
        """Waits until the page contains the texts."""
        for text in texts:
            expect(self.page.locator("main")).to_contain_text(text)

    def count(self, name: str) -> str:
        """One of the counts."""
        return self.page.locator(f".counts .{name} dd").inner_text()

    def has_count(self, name: str, number: str) -> None:
        """Waits until a count has this value."""
        expect(self.page.locator(f".counts .{name} dd")).to_have_text(number)

    def barriers(self) -> list[str]:
        """The violations of WCAG 2.2 AA that axe finds, serious or not."""
        # A page that a link has just led to may not have its styles yet.
        self.page.wait_for_load_state()
        found = Axe().run(self.page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]})
        return [
            f"{rule['id']}: {node['html'][:200]}" for rule in found.response["violations"] for node in rule["nodes"]
        ]


class Stage:
    """The processes behind the pages, and the users' browsers."""

    def __init__(self, address: str, chromium: Browser, bidden: Bidden, books: Books, stack: ExitStack) -> None:
        self.address = address
        self.bidden = bidden
        self.books = books
        self._chromium = chromium
        self._stack = stack

    def person(self, email: str | None = None, *, phone: bool = False, dark: bool = False) -> Person:
        """A user in a browser context of their own; signed in if an address is given."""
        context = self._stack.enter_context(
            self._chromium.new_context(
                viewport={"width": 390, "height": 844} if phone else {"width": 1280, "height": 900},
                color_scheme="dark" if dark else "light",
            )
        )
        person = Person(self.address, context)
        self._stack.callback(self._check_errors, person)
        if email is not None:
            person.sign_in(email)
            expect(person.page.get_by_role("button", name="Sign out")).to_be_visible()
        return person

    @staticmethod
    def _check_errors(person: Person) -> None:
        assert not person.errors, person.errors
