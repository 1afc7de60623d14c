"""The page of `sidecar browse` in a real browser: every screen, light and dark, on a phone and a desktop.

Screenshots of each stay in the test's directory. One process and one browser serve all tests, because each start costs seconds.
"""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.browser import Visitor, chromium, keep
from tests.e2e.browsing import MARKUP, NUL, TABLE, Site, path, prepare
from tests.e2e.machine import Machine
from tests.harness.database_states import connect
from tests.harness.environment import clean_environment
from tests.harness.eventually import eventually

if TYPE_CHECKING:
    from playwright.sync_api import Browser, StorageState

READY = "main:not([data-busy=live], [data-busy=reload])"


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    root = tmp_path_factory.mktemp("browse")
    machine = Machine.make(root, f"file://{root}/store", clean_environment(root))
    prepare(machine)
    return machine


@pytest.fixture(scope="module")
def site(machine: Machine) -> Iterator[Site]:
    with machine.start("browse") as process:
        yield Site(process)
        assert process.terminate() == 143
        assert process.stderr() == ""
    assert machine.leftovers() == []


@pytest.fixture(scope="module")
def session(site: Site, browser: "Browser") -> "StorageState":
    """What the browser keeps after it has opened the link: nothing of the token is left in its address."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(site.base + site.link)
    assert page.url == f"{site.base}/"
    state = context.storage_state()
    context.close()
    return state


class Reader(Visitor):
    """A browser window with the session."""

    def go(self, target: str) -> None:
        """Open a screen, and wait until nothing more comes."""
        self.page.goto(target)
        self.page.wait_for_selector(READY)

    def rows(self) -> int:
        """The rows of a table that are shown."""
        return self.page.locator("[data-row]").count()


def read(browser: "Browser", site: Site, session: "StorageState", *, width: int = 1100, **more: bool) -> Reader:
    given = {"dark": False, **more}
    return Reader(browser, f"{site.base}/", width=width, height=800, session=session, **given)


def oldest(machine: Machine) -> str:
    return str(machine.points()[0].relative_to(machine.root / "store"))


def compared(machine: Machine, **more: str) -> str:
    return path("/compare", from_=oldest(machine), to="live", **more)


@pytest.mark.parametrize(("width", "dark"), [(1100, False), (1100, True), (390, False), (390, True)])
def test_every_screen_fits_and_shows_hostile_data_as_text(
    site: Site, browser: "Browser", session: "StorageState", machine: Machine, tmp_path: Path, width: int, dark: bool
) -> None:
    """Nothing is scrolled sideways on a phone; dark is dark; markup, NUL, 1 MiB of text and right-to-left text break nothing."""
    reader = read(browser, site, session, width=width, dark=dark)
    screens = {
        "timeline": "/",
        "orders": compared(machine),
        "hostile": compared(machine, table=TABLE),
        "wide": compared(machine, table="orders", all="1"),
        "life": path("/row", table="orders", key="[400]"),
        "hostile life": path("/row", table=TABLE, key='["long"]'),
        "failed": path("/compare", from_="newest~99", to="live"),
        "refused": "/nowhere",
    }
    for name, target in screens.items():
        if name == "refused":
            reader.page.goto(site.base + target)
        else:
            reader.go(site.base + target)
        keep(reader, tmp_path, f"{name}")
        assert not reader.is_too_wide(), name
        paper = reader.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(int(part) for part in paper.strip("rgb()").split(",")) < 200) is dark
        assert reader.page.locator("img, iframe, main script").count() == 0, name
    reader.close(expected="404")


def test_a_person_finds_what_happened_with_the_keyboard_and_the_back_button(
    site: Site, browser: "Browser", session: "StorageState", machine: Machine
) -> None:
    """
    1. From the timeline, the default choice is the newest restore point and now. 2. The row that changed leads to its history.
    3. Back, and back, is where one came from. 4. Pages and search by key.
    """
    reader = read(browser, site, session)
    page = reader.page
    reader.go(f"{site.base}/")
    assert page.locator("tr[data-row]").count() == 4
    page.get_by_role("button", name="Compare", exact=True).click()
    page.wait_for_selector(".rows")
    assert reader.text(".lead").startswith("1 row added, 1 changed in 1 table.")
    changed = page.locator("tr.changed")
    assert "real → integer" in changed.inner_text()
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_url("**/row?**")
    page.wait_for_selector(READY)
    assert reader.text("h1") == "History of orders 400"
    assert page.locator(".life li.changed").count() == 1
    page.go_back()
    page.wait_for_selector(".rows")
    page.go_back()
    assert page.title().startswith("What happened, and when?")
    reader.go(site.base + compared(machine, table="orders"))
    page.get_by_role("button", name="Compare again").click()
    page.wait_for_selector(".rows")
    assert page.url.startswith(f"{site.base}/compare?")
    assert reader.rows() == 50
    page.keyboard.press("n")
    page.wait_for_selector("text=Page 2 of 8")
    page.keyboard.press("/")
    page.keyboard.type("note 7")
    page.keyboard.press("Enter")
    page.wait_for_url("**q=note**")
    assert reader.rows() == 1
    page.locator("input[value=removed]").uncheck()
    page.wait_for_selector(".nothing")
    reader.close()


def test_it_works_without_javascript_in_two_windows(
    site: Site, browser: "Browser", session: "StorageState", machine: Machine
) -> None:
    """Each window has its own comparison; the filters are a form."""
    windows = [read(browser, site, session, javascript=False) for _ in range(2)]
    for each, table in zip(windows, ("orders", TABLE), strict=True):
        each.page.goto(site.base + compared(machine, table=table))
    orders, hostile = windows
    orders.page.locator("input[value=changed]").uncheck()
    orders.page.get_by_role("button", name="Apply").click()
    assert orders.page.locator("tr.changed").count() == 0
    assert orders.page.locator("tr.removed").count() > 0
    hostile.page.get_by_role("searchbox").fill(NUL.replace("\0", "\\x00").partition("\\")[2].partition("00")[2])
    hostile.page.get_by_role("button", name="Apply").click()
    assert hostile.page.locator("tr[data-row]").count() == 1
    assert MARKUP in hostile.text("#main")
    for each in windows:
        each.close()


def test_an_expired_session_and_another_browser_say_what_to_do(site: Site, browser: "Browser") -> None:
    stranger = Visitor(browser, f"{site.base}/", width=390, height=800, dark=False)
    assert "Start `sidecar browse` again" in stranger.text("main")
    assert stranger.page.locator("text=app.db").count() == 0
    stranger.close(expected="403")


def says_so(reader: Reader, target: str) -> bool:
    """A listing is good for some seconds, so this may take some."""
    reader.page.goto(target)
    return reader.page.locator("#trouble").count() > 0


def test_while_the_store_is_gone_the_page_goes_on_with_what_it_has(
    site: Site, browser: "Browser", session: "StorageState", machine: Machine, tmp_path: Path
) -> None:
    """
    1. The store is gone: the timeline stays and says so; what was compared opens, what was not cannot be.
    2. It is back: the same page shows everything again.
    """
    store, elsewhere = machine.root / "store", machine.root / "elsewhere"
    reader = read(browser, site, session)
    reader.go(f"{site.base}/")
    reader.go(site.base + compared(machine))
    old, new = compared(machine), path("/compare", from_=oldest(machine), to="newest")
    store.rename(elsewhere)
    try:
        eventually(lambda: says_so(reader, f"{site.base}/"), 30, "the page says that the store does not answer")
        assert reader.text("#trouble").startswith("The store does not answer since")
        assert reader.page.locator("tr[data-row]").count() == 4
        keep(reader, tmp_path, "store gone")
        reader.go(site.base + old)
        assert reader.rows() == 50
        reader.go(site.base + new)
        assert "cannot be compared" in reader.text("h1")
    finally:
        elsewhere.rename(store)
    reader.page.get_by_text("Try again").click()
    reader.page.wait_for_selector(".rows")
    reader.close()


def test_a_person_brings_rows_back_and_undoes_it(browser: "Browser", tmp_path: Path) -> None:
    """
    1. From what happened to what differs now, and to the preview, on a desktop; the name is asked for. 2. Done, on the same page,
    without a reload by hand: changes are undone, and the newer row stays. 3. Undone on a phone, in the dark.
    """
    machine = Machine.make(tmp_path, f"file://{tmp_path}/store", clean_environment(tmp_path))
    prepare(machine)
    middle, newest = (str(each.relative_to(machine.root / "store")) for each in machine.points()[1:])
    with machine.start("browse", "--allow-restore") as process:
        site = Site(process)
        reader = Reader(browser, site.base + site.link, width=1100, height=800, dark=False)
        page = reader.page
        reader.go(site.base + path("/compare", from_=middle, to=newest, table="orders"))
        assert page.get_by_role("link", name="Bring rows of orders back").count() == 0
        page.get_by_role("link", name="with now").click()
        keep(reader, tmp_path, "comparison")
        page.get_by_role("link", name="Bring rows of orders back").click()
        page.get_by_label("Rows that are gone, and rows that were changed").check()
        keep(reader, tmp_path, "what")
        page.get_by_role("button", name="See what would be done").click()
        page.wait_for_selector("text=This would be done")
        keep(reader, tmp_path, "preview")
        assert "+60 inserted ~1 changed back 1 newer row stays." in reader.text("main")
        page.get_by_label("to go on").fill("app.db")
        page.get_by_role("button", name="Bring back", exact=True).click()
        page.wait_for_selector("h2:text('Brought back')")
        keep(reader, tmp_path, "done")
        with closing(connect(machine.database)) as db:
            assert db.execute("SELECT id, total FROM orders WHERE id IN (1, 400, 9001)").fetchall() == [
                (1, 1.5),
                (400, 600.0),
                (9001, 1),
            ]
        phone = read(browser, site, page.context.storage_state(), width=390, dark=True)
        phone.go(f"{site.base}/restoring")
        phone.page.get_by_role("button", name="Undo").click()
        phone.page.wait_for_selector("text=This would be done")
        keep(phone, tmp_path, "undo")
        assert not phone.is_too_wide()
        phone.page.get_by_label("to go on").fill("app.db")
        phone.page.get_by_role("button", name="Undo", exact=True).click()
        phone.page.wait_for_selector("h2:text('Undone')")
        phone.close()
        reader.close()
