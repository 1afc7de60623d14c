"""A real browser that visits the status page and reports every error, policy violation and request to other origins."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, StorageState

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PATIENCE = 15_000.0  # milliseconds

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")


class Visitor:
    """A page in a browser. `close` fails if the console showed any error or warning."""

    def __init__(
        self,
        browser: Browser,
        url: str,
        *,
        width: int,
        height: int,
        dark: bool,
        javascript: bool = True,
        session: StorageState | None = None,
    ) -> None:
        self._context = browser.new_context(
            storage_state=session,
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
            java_script_enabled=javascript,
        )
        self._context.set_default_timeout(PATIENCE)
        self._origin = url
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page = self._context.new_page()
        self.page.on("console", lambda message: self._hear(message.type, message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(f"uncaught: {error}"))
        self.page.on("dialog", lambda dialog: self._refuse(dialog.message, dialog.dismiss))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.add_init_script(
            "document.addEventListener('securitypolicyviolation', e => console.error('CSP', e.violatedDirective, e.blockedURI))"
        )
        self.page.goto(url)

    def _refuse(self, message: str, dismiss: Callable[[], None]) -> None:
        self.complaints.append(f"dialog: {message}")
        dismiss()

    def _hear(self, kind: str, text: str) -> None:
        if kind in {"error", "warning"}:
            self.complaints.append(f"{kind}: {text}")

    def level(self) -> str:
        """The level that the page shows: good, look, wait, bad or unknown."""
        return str(self.page.locator("#hero").get_attribute("data-level"))

    def wait_level(self, level: str, timeout: float = PATIENCE) -> None:
        """Wait until the page shows this level."""
        self.page.locator(f"#hero[data-level={level}]").wait_for(timeout=timeout)

    def text(self, selector: str) -> str:
        """The visible text of an element."""
        return str(self.page.locator(selector).inner_text())

    def is_too_wide(self) -> bool:
        """Whether the page has to be scrolled sideways."""
        return bool(self.page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"))

    def foreign(self) -> list[str]:
        """The requests to other origins."""
        own = urlsplit(self._origin).netloc
        return [url for url in self.requests if urlsplit(url).scheme != "data" and urlsplit(url).netloc != own]

    def close(self, *, expected: str = "") -> None:
        """Close the page. Complaints that contain `expected` are allowed: a daemon that has stopped refuses connections."""
        self._context.close()
        unexpected = [each for each in self.complaints if not expected or expected not in each]
        assert not unexpected, unexpected
        assert not self.foreign()


@contextmanager
def chromium() -> Iterator[Browser]:
    """Debian's chromium, without a window. Skips the test if it is not installed."""
    if CHROMIUM is None:
        pytest.skip("no chromium here; on Debian: apt-get install chromium")
    with playwright.sync_playwright() as play:
        # Root has no sandbox in a container, and /dev/shm may be tiny there.
        arguments = ["--no-sandbox", "--disable-dev-shm-usage"]
        browser = play.chromium.launch(executable_path=CHROMIUM, args=arguments)
        try:
            yield browser
        finally:
            browser.close()


def visit(
    browser: Browser, port: int, *, width: int = 1000, height: int = 900, dark: bool = False, javascript: bool = True
) -> Visitor:
    """Open the page of the daemon that listens on a port."""
    url = f"http://127.0.0.1:{port}/"
    return Visitor(browser, url, width=width, height=height, dark=dark, javascript=javascript)


def keep(visitor: Visitor, directory: Path, name: str) -> Path:
    """Save a screenshot of the whole page and return its path."""
    path = directory / f"{name}.png"
    visitor.page.screenshot(path=path, full_page=True)
    return path
