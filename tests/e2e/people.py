"""People at browsers: each has a browser of her own, and whatever it complains of fails the test."""

from __future__ import annotations

from contextlib import ExitStack

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect

from tests.acceptance.books import Books
from tests.acceptance.processes import TIMEOUT_SECONDS, Bidden

PASSWORD = "correct horse battery"
expect.set_options(timeout=TIMEOUT_SECONDS * 1000)


class Person:
    """Somebody signed in. `page` is where she is."""

    def __init__(self, address: str, context: BrowserContext) -> None:
        self.address = address
        self.complaints: list[str] = []
        self.page: Page = context.new_page()
        self.page.set_default_timeout(TIMEOUT_SECONDS * 1000)
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _heard(self, message: ConsoleMessage) -> None:
        # That a page was refused is no complaint of the browser's own: tests look at it themselves.
        if message.type in ("error", "warning") and "the server responded with a status of 4" not in message.text:
            self.complaints.append(message.text)

    def sign_in(self, email: str, password: str = PASSWORD) -> None:
        """By the form."""
        self.go("/sign-in")
        self.page.get_by_label("E-mail address").fill(email)
        self.page.get_by_label("Password").fill(password)
        self.page.get_by_role("button", name="Sign in", exact=True).click()

    def go(self, path: str) -> None:
        """By the address bar."""
        self.page.goto(self.address + path)

    def press(self, name: str) -> None:
        """A button or a link, by what stands on it."""
        self.page.get_by_role("button", name=name).or_(self.page.get_by_role("link", name=name)).first.click()

    def sees(self, *texts: str) -> None:
        """What comes to stand on the page."""
        for text in texts:
            expect(self.page.locator("main")).to_contain_text(text)

    def count(self, name: str) -> str:
        """One of the numbers."""
        return self.page.locator(f".counts .{name} dd").inner_text()

    def has_count(self, name: str, number: str) -> None:
        """One of the numbers comes to be this."""
        expect(self.page.locator(f".counts .{name} dd")).to_have_text(number)

    def barriers(self) -> list[str]:
        """What axe finds on the page against WCAG 2.2 AA, be it serious or not."""
        found = Axe().run(self.page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]})
        return [
            f"{rule['id']}: {node['html'][:200]}" for rule in found.response["violations"] for node in rule["nodes"]
        ]


class Stage:
    """What runs behind the pages, and who is before them."""

    def __init__(self, address: str, chromium: Browser, bidden: Bidden, books: Books, stack: ExitStack) -> None:
        self.address = address
        self.bidden = bidden
        self.books = books
        self._chromium = chromium
        self._stack = stack

    def person(self, email: str | None = None, *, phone: bool = False, dark: bool = False) -> Person:
        """Somebody at a browser of her own, signed in where an address is given."""
        context = self._stack.enter_context(
            self._chromium.new_context(
                viewport={"width": 390, "height": 844} if phone else {"width": 1280, "height": 900},
                color_scheme="dark" if dark else "light",
            )
        )
        person = Person(self.address, context)
        self._stack.callback(self._heed, person)
        if email is not None:
            person.sign_in(email)
            expect(person.page.get_by_role("button", name="Sign out")).to_be_visible()
        return person

    @staticmethod
    def _heed(person: Person) -> None:
        assert not person.complaints, person.complaints
