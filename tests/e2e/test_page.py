"""The status page in a real browser: its content in every state, that it never lies, and that it cannot be abused.

Screenshots of each state stay in the test's directory.
"""

import html
import http.client
import json
import shlex
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.request import urlopen

import pytest

from tests.e2e.browser import chromium, keep, visit
from tests.e2e.machine import CALM_APP, Machine, notes, write_note
from tests.harness.environment import clean_environment
from tests.harness.eventually import eventually
from tests.harness.proxy import FaultProxy
from tests.harness.sidecar_process import SidecarProcess
from tests.harness.writers import open_database

if TYPE_CHECKING:
    from playwright.sync_api import Browser

HOSTILE = "<img src=x onerror=alert(1)>.db"
GONE = "ERR_CONNECTION_REFUSED"


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def protected(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SidecarProcess]:
    """A protected machine with a few restore points of different sizes."""
    root = tmp_path_factory.mktemp("protected")
    machine = Machine.make(root, f"file://{root}/store", clean_environment(root))
    _grow(machine.database, 9 << 20)
    with machine.run(*CALM_APP, stream="off") as process:  # a stream would begin with a restore point of its own
        process.wait_ready()
        process.wait_metric("sidecar_backups_total", 1, outcome="published")
        for size in (300_000, 2_000_000, 700_000):
            _grow(machine.database, size)
            assert machine.cli("backup").returncode == 0
        eventually(lambda: _listed(process) == 4, 30, "the listing has every restore point")
        yield process


def _listed(process: SidecarProcess) -> int:
    """How many restore points `/status` counts in the store."""
    listing = json.loads(process.http("/status")[1])["databases"][0]["listing"]
    return int(listing["count"]) if listing else 0


def _grow(path: Path, size: int) -> None:
    with closing(open_database(path)) as connection:
        connection.execute("PRAGMA journal_mode=wal")
        connection.execute("CREATE TABLE IF NOT EXISTS blobs (content BLOB NOT NULL)")
        connection.execute("INSERT INTO blobs VALUES (randomblob(?))", (size,))


@pytest.mark.parametrize(("width", "dark"), [(1000, False), (1000, True), (360, False), (360, True)])
def test_protected_is_seen_at_a_glance(
    protected: SidecarProcess, browser: "Browser", tmp_path: Path, width: int, dark: bool
) -> None:
    """Title and heading say it; nothing has to be scrolled sideways on a phone; dark mode is dark."""
    visitor = visit(browser, protected.port, width=width, height=740, dark=dark)
    visitor.wait_level("good")
    keep(visitor, tmp_path, "protected")
    assert visitor.page.title() == "Protected · sidecar"
    assert visitor.text("h1") == "Protected"
    assert visitor.text("#since").startswith("since ")
    assert visitor.text("#pulse") == "live"
    databases = visitor.text("#databases")
    assert all(words in databases for words in ("Newest restore point", "Next backup", "in 5", "MiB"))
    assert "4 restore points" in databases
    assert visitor.page.locator(".point").count() == 4
    assert visitor.page.locator(".chart g").count() == 4
    assert visitor.page.locator("tbody tr").count() == 4
    assert "held by this machine" in visitor.text("#facts")
    assert not visitor.is_too_wide()
    paper = visitor.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(int(part) for part in paper.strip("rgb()").split(",")) < 200) is dark
    visitor.close()


def test_store_that_is_down_is_shown_with_cause_and_hint_until_it_is_back(
    proxied: Machine, proxy: FaultProxy, browser: "Browser", tmp_path: Path
) -> None:
    """
    1. Protected. 2. The store is down: not protected, since when, why, what to do, and it is among the problems.
    3. The store is back: protected, without a reload of the page.
    """
    write_note(proxied.database, "one")
    with proxied.run(*CALM_APP, interval="1s") as process:
        process.wait_ready()
        visitor = visit(browser, process.port)
        visitor.wait_level("good")
        proxy.down()
        write_note(proxied.database, "two")
        visitor.wait_level("bad", timeout=40_000)
        keep(visitor, tmp_path, "store down")
        assert visitor.text("h1") == "Not protected"
        assert visitor.text("#since").startswith("since ")
        assert visitor.text("#reason")
        assert visitor.text("#reason") in visitor.text("#problems")
        proxy.up()
        visitor.wait_level("good", timeout=40_000)
        assert visitor.text("h1") == "Protected"
        visitor.close()


def test_hostile_database_name_is_only_text(browser: "Browser", local: Machine, tmp_path: Path) -> None:
    """In the name, the path and a problem it creates no element, loads nothing and runs nothing."""
    database = local.data / HOSTILE
    write_note(database, "one")
    with local.run(*CALM_APP, databases=database, interval="1s") as process:
        process.wait_ready()
        process.wait_metric("sidecar_backups_total", 1, outcome="published")
        database.unlink()  # so that an error names it, too
        visitor = visit(browser, process.port, width=360)
        visitor.wait_level("bad")
        keep(visitor, tmp_path, "hostile")
        assert visitor.text("h2 >> nth=0") == HOSTILE
        assert HOSTILE in visitor.text("#problems")
        assert visitor.page.locator("img").count() == 0
        assert not visitor.is_too_wide()
        visitor.close()


def test_without_javascript_the_heading_is_there(local: Machine) -> None:
    """The server renders it into the page; a hostile name in it is only text, too."""
    database = local.data / HOSTILE
    write_note(database, "one")
    with local.run(*CALM_APP, databases=database, interval="1s") as process:
        process.wait_metric("sidecar_backups_total", 1, outcome="published")
        status, page = process.http("/")
        assert (status, page.count('<h1 id="title">Protected</h1>')) == (200, 1)
        assert 'data-level="good"' in page
        database.unlink()
        process.wait_metric("sidecar_backups_total", 1, outcome="failed")
        page = process.http("/")[1]
        assert 'data-level="bad"' in page
        assert '<h1 id="title">Not protected</h1>' in page
        assert html.escape(HOSTILE) in page
        assert HOSTILE not in page


@pytest.mark.parametrize("javascript", [True, False])
def test_every_restore_point_of_the_store_has_a_command_that_restores_it(
    browser: "Browser", local: Machine, tmp_path: Path, javascript: bool
) -> None:
    """Also those of earlier processes, and on a phone; the command is run exactly as shown and restores that state."""
    for note in ("one", "two"):
        write_note(local.database, note)
        assert local.publish() == "published"
    write_note(local.database, "three")
    with local.run(*CALM_APP) as process:
        process.wait_metric("sidecar_backups_total", 1, outcome="published")
        eventually(lambda: process.http("/")[1].count('class="point"') == 3, 10, "three restore points on the page")
        visitor = visit(browser, process.port, width=360, javascript=javascript)
        visitor.wait_level("good")
        assert "3 restore points" in visitor.text("#databases")
        oldest = visitor.page.locator(".point").nth(2)
        assert not oldest.locator("code").is_visible()
        oldest.locator("summary").click()
        keep(visitor, tmp_path, "commands")
        program, *arguments = shlex.split(oldest.locator("code").inner_text())
        assert not visitor.is_too_wide()
        newest = visitor.page.locator(".point code").all_text_contents()[1]
        assert visitor.page.locator("button").count() == 5 * javascript
        visitor.close()
        done = local.cli(*arguments)
    assert (program, done.returncode) == ("sidecar", 0), done.stderr
    assert notes(local.root / arguments[-1]) == ["one"]
    compared = local.cli(*shlex.split(newest)[1:])
    assert (compared.returncode, compared.stdout.splitlines()[-1]) == (1, "+ text 'three'")


def test_open_command_stays_open_when_a_restore_point_is_published(
    protected: SidecarProcess, browser: "Browser"
) -> None:
    """The row that somebody is about to copy from does not close or become another one."""
    status = json.loads(protected.http("/status")[1])
    visitor = visit(browser, protected.port)
    visitor.wait_level("good")
    row = visitor.page.locator(".point").nth(1)
    key = row.get_attribute("data-key")
    row.locator("summary").click()
    listing = status["databases"][0]["listing"]
    listing["newest"].insert(0, {**listing["newest"][0], "key": "app.db/20991231T235959.999Z.sqlite3.zst"})
    listing["count"] += 1
    visitor.page.route("**/status", lambda route: route.fulfill(json=status))
    visitor.page.get_by_text("5 restore points").wait_for()
    assert visitor.page.locator("details[open]").count() == 1
    assert visitor.page.locator("details[open]").get_attribute("data-key") == key
    visitor.close()


def test_waiting_for_the_lease_names_the_holder(browser: "Browser", local: Machine, tmp_path: Path) -> None:
    other = local.with_env(FLY_MACHINE_ID="machine-one")
    (local / "second").mkdir()
    second = Machine.make(local / "second", local.store, local.env).with_env(FLY_MACHINE_ID="machine-two")
    with other.run(*CALM_APP) as holder:
        holder.wait_ready()
        with second.run(*CALM_APP) as process:
            process.wait_metric("sidecar_build_info", 1)
            visitor = visit(browser, process.port)
            visitor.page.get_by_text("Waiting for another machine").first.wait_for()
            assert visitor.level() == "wait"
            figures = visitor.text("#databases")
            assert figures.count("not known yet") == 2, "the store may be full of restore points"
            assert "machine-one" in visitor.text("#reason")
            keep(visitor, tmp_path, "waiting")
            visitor.close()


def test_daemon_that_is_gone_is_never_a_stale_green(browser: "Browser", local: Machine, tmp_path: Path) -> None:
    """Within seconds heading, title and icon say unknown instead of protected; the rest is grey, with its age."""
    write_note(local.database, "one")
    with local.run(*CALM_APP, interval="1s") as process:
        process.wait_ready()
        process.wait_metric("sidecar_backups_total", 1, outcome="published")
        visitor = visit(browser, process.port)
        visitor.wait_level("good")
        process.kill()
        visitor.wait_level("unknown", timeout=5_000)
        keep(visitor, tmp_path, "gone")
        assert visitor.page.title() == "No answer from the daemon · sidecar"
        assert visitor.text("#pulse").startswith("no answer for ")
        assert visitor.page.evaluate("getComputedStyle(document.getElementById('below')).filter") == "grayscale(1)"
        visitor.close(expected=GONE)


def test_daemon_that_hangs_is_never_a_stale_green(protected: SidecarProcess, browser: "Browser") -> None:
    """The connection stays open without an answer, as behind a proxy of a stopped machine; then it answers again."""
    visitor = visit(browser, protected.port)
    visitor.wait_level("good")
    visitor.page.route("**/status", lambda route: None)
    visitor.wait_level("unknown", timeout=10_000)
    visitor.page.unroute_all(behavior="ignoreErrors")
    visitor.wait_level("good")
    visitor.close()


def test_drill_and_cost_are_shown_where_there_are_any(protected: SidecarProcess, browser: "Browser") -> None:
    """As `/status` has them; markup in them is only text."""
    status = json.loads(protected.http("/status")[1])
    drill = {
        "last_drill": status["now"],
        "next_drill": status["now"],
        "drill_outcome": "failed",
        "drill_error": "<b>no</b>",
    }
    status["databases"][0] |= drill
    status["cost"] = {"total": 1.234, "requests": 0.9, "storage": 0.334, "egress": 0.0, "boot": 0.5}
    visitor = visit(browser, protected.port)
    visitor.page.route("**/status", lambda route: route.fulfill(json=status))
    visitor.page.get_by_text("$1.23 a month").wait_for()
    facts = visitor.text("#facts")
    assert all(
        words in facts
        for words in (
            "passed ",
            "failed: <b>no</b>",
            "requests $0.90",
            "storage $0.33",
            "$0.50 for each start",
        )
    )
    visitor.close()


@pytest.mark.parametrize("answer", ['{"verdict": {"level": "good", "title": "Protected"}}', "<html>", ""])
def test_answer_that_makes_no_sense_is_never_green(protected: SidecarProcess, browser: "Browser", answer: str) -> None:
    """Another program may answer on this port by now."""
    visitor = visit(browser, protected.port)
    visitor.wait_level("good")
    visitor.page.route("**/status", lambda route: route.fulfill(body=answer, content_type="application/json"))
    visitor.wait_level("unknown", timeout=10_000)
    visitor.close()


def test_the_page_can_do_nothing_but_read_the_status(protected: SidecarProcess) -> None:
    """Its policy allows nothing inline, nothing from other origins and no framing; it has nothing inline, and no form."""
    script = "text/javascript"
    for path, kind in (("/", "text/html"), ("/page.css", "text/css"), ("/page.js", script), ("/parts.js", script)):
        with urlopen(f"http://127.0.0.1:{protected.port}{path}", timeout=5) as answer:
            assert answer.headers["Content-Type"] == f"{kind}; charset=utf-8"
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            policy = answer.headers["Content-Security-Policy"]
            body = answer.read().decode()
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert not any(word in body for word in ("innerHTML", "style=", "<form", "eval(", "https://"))
    connection = http.client.HTTPConnection("127.0.0.1", protected.port, timeout=5)
    with closing(connection):
        connection.request("POST", "/")
        assert connection.getresponse().status == 405
