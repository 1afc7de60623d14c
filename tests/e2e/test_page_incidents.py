"""Open incidents on the page, in a real browser: each with the command that acknowledges it, which can be copied."""

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.browser import Visitor, chromium, keep, visit
from tests.e2e.machine import CALM_APP, Machine, write_note
from tests.harness.environment import clean_environment
from tests.harness.eventually import eventually
from tests.harness.sidecar_process import SidecarProcess

if TYPE_CHECKING:
    from playwright.sync_api import Browser

WITHOUT_API = "window.real = navigator.clipboard; Object.defineProperty(navigator, 'clipboard', { value: undefined });"
DENIED = "navigator.clipboard.writeText = async () => { throw new DOMException('denied', 'NotAllowedError'); };"
ALL_DENIED = f"{DENIED} document.execCommand = () => false;"


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def mistyped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Machine, SidecarProcess]]:
    """A machine with two open incidents: its store is mistyped, and another machine left diverged data there."""
    root = tmp_path_factory.mktemp("mistyped")
    machine = Machine.make(root, f"file://{root}/store", clean_environment(root))
    write_note(machine.database, "real")
    assert machine.publish() == "published"
    wrong = replace(machine, store=f"{machine.store}s")
    diverged = root / "stores" / "diverged" / "app.db"
    diverged.mkdir(parents=True)
    shutil.copy(machine.points()[-1], diverged / f"{datetime.now(UTC):%Y%m%dT%H%M%S.000Z}-m9.sqlite3.zst")
    machine.lose_disk()
    with wrong.run(*CALM_APP) as process:
        process.wait_ready()
        write_note(machine.database, "shadow")
        assert wrong.cli("backup").returncode == 0
        eventually(lambda: len(_incidents(process)) == 2, 60, "both incidents are open")
        yield wrong, process


def _incidents(process: SidecarProcess) -> list[dict[str, str]]:
    return list(json.loads(process.http("/status")[1])["incidents"])


def _click_copy(visitor: Visitor, command: str) -> str:
    """Click the button beside a command, and return what it says then."""
    button = visitor.page.locator("#problems .command", has_text=command).get_by_role("button")
    button.click()
    visitor.page.locator("#problems").get_by_text(re.compile("^(Copied|Selected)$")).wait_for()
    return button.inner_text()


@pytest.mark.parametrize("width", [360, 1000])
@pytest.mark.parametrize("javascript", [True, False])
def test_every_open_incident_is_shown_with_its_command(
    mistyped: tuple[Machine, SidecarProcess], browser: "Browser", tmp_path: Path, javascript: bool, width: int
) -> None:
    """Also where scripts are off: the heading names one of them, and says that the others are below."""
    _, process = mistyped
    visitor = visit(browser, process.port, width=width, javascript=javascript)
    visitor.wait_level("look")
    if javascript:
        visitor.page.get_by_text("live", exact=True).wait_for()
    keep(visitor, tmp_path, "incidents")
    assert visitor.text("h1") == "Protected – needs attention"
    assert "sidecar ack " in visitor.text("#hint")
    assert "1 more below" in visitor.text("#hint")
    shown = visitor.text("#problems")
    for each in _incidents(process):
        assert each["message"] in shown
        assert visitor.page.locator("#problems code").get_by_text(each["acknowledge"], exact=True).is_visible()
    assert visitor.page.locator("#problems button").count() == 2 * javascript
    assert not visitor.is_too_wide()
    visitor.close()


@pytest.mark.parametrize(
    ("script", "says", "copies"),
    [("", "Copied", True), (WITHOUT_API, "Copied", True), (DENIED, "Copied", True), (ALL_DENIED, "Selected", False)],
    ids=["permitted", "no clipboard API", "denied", "nothing is permitted"],
)
def test_command_can_be_copied_or_is_selected_for_it(
    mistyped: tuple[Machine, SidecarProcess], browser: "Browser", script: str, says: str, copies: bool
) -> None:
    """Plain HTTP has no clipboard API, and where there is one it may be denied; the button says what it did."""
    _, process = mistyped
    visitor = visit(browser, process.port)
    visitor.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    visitor.page.wait_for_load_state()
    visitor.page.get_by_text("live", exact=True).wait_for()
    visitor.page.evaluate("navigator.clipboard.writeText('before')")
    visitor.page.evaluate(f"(() => {{ {script} }})()")
    assert _click_copy(visitor, "sidecar ack divergence") == says
    assert visitor.page.evaluate("getSelection().toString()") == "sidecar ack divergence"
    held = visitor.page.evaluate("(window.real || navigator.clipboard).readText()")
    assert held == ("sidecar ack divergence" if copies else "before")
    visitor.close()


def test_acknowledged_incident_leaves_the_open_page(
    mistyped: tuple[Machine, SidecarProcess], browser: "Browser"
) -> None:
    """The commands are run as they are shown; the last of these tests, since nothing is open afterwards.

    Takes longer than ten seconds: the daemon looks for acknowledgements three times a minute.
    """
    machine, process = mistyped
    visitor = visit(browser, process.port)
    visitor.wait_level("look")
    visitor.page.locator("#problems button").first.wait_for()
    for text in visitor.page.locator("#problems code").all_inner_texts():
        program, *arguments = shlex.split(text)
        assert (program, machine.cli(*arguments).returncode) == ("sidecar", 0)
    visitor.wait_level("good", timeout=60_000)
    assert visitor.page.locator("#problems .command").count() == 0
    visitor.close()
