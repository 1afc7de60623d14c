"""`sidecar browse` from outside, over plain HTTP: who gets in, what is refused, and that it only reads."""

import hashlib
import html
import re
import shlex
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.e2e.browsing import LONG, MARKUP, NUL, TABLE, Site, path, prepare
from tests.e2e.machine import Machine
from tests.harness.database_states import connect
from tests.harness.environment import clean_environment
from tests.harness.eventually import eventually

REFUSALS = (400, 403, 404, 405, 421)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    root = tmp_path_factory.mktemp("browse")
    machine = Machine.make(root, f"file://{root}/store", clean_environment(root))
    prepare(machine)
    return machine


@pytest.fixture(scope="module")
def site(machine: Machine) -> Iterator[Site]:
    """One page for all tests, whose link was used."""
    before = digests(machine)
    with machine.start("browse") as process:
        site = Site(process)
        assert site.get("/").status == 403, "nobody was let in yet"
        entered = site.enter()
        assert (entered.status, entered.headers["Location"]) == (303, "/")
        attributes = entered.headers["Set-Cookie"].lower()
        assert "httponly" in attributes
        assert "samesite=strict" in attributes
        yield site
        assert process.terminate() == 143
        assert process.stderr() == ""
    assert digests(machine) == before, "it only reads"
    assert machine.leftovers() == []


def digests(machine: Machine) -> dict[str, str]:
    """Every file of the database and of the store."""
    files = [each for folder in (machine.data, machine.root / "store") for each in folder.rglob("*") if each.is_file()]
    return {
        str(each): hashlib.sha256(each.read_bytes()).hexdigest() for each in files if not each.name.endswith("-shm")
    }


def keys(machine: Machine) -> list[str]:
    """The keys of the restore points, oldest first."""
    return [str(each.relative_to(machine.root / "store")) for each in machine.points()]


def compared(machine: Machine, **more: str) -> str:
    """The address of the comparison of the first restore point with the live database."""
    return path("/compare", from_=keys(machine)[0], to="live", **more)


def test_the_link_opens_the_page_once_and_only_in_one_browser(site: Site) -> None:
    assert site.get("/").status == 200
    again = site.get(site.link, Cookie="")
    assert (again.status, again.headers["Set-Cookie"]) == (403, None)
    assert "This link was used already" in again.text
    for cookie in ("", "sidecar-browse=1", f"sidecar-browse-{site.port}=guessed", f"sidecar-browse-{site.port}=\u00e9"):
        answer = site.get("/", Cookie=cookie.encode().decode("latin-1"))
        assert answer.status == 403
        assert "app.db" not in answer.text, "whoever is refused learns nothing"
    assert site.get("/?token=wrong").status == 403


def test_only_names_of_this_machine_are_answered(site: Site) -> None:
    """DNS rebinding: a name of somebody else's that leads to 127.0.0.1. A tunnel may have another port."""
    for host in ("evil.example", f"evil.example:{site.port}", "127.0.0.1.evil.example", "[::", ""):
        for target in ("/", "/page.css", site.link):
            assert site.get(target, Host=host).status in (400, 421), host
    for host in (f"localhost:{site.port}", "127.0.0.1:1", "[::1]:8000"):
        assert site.get("/", Host=host).status == 200, host
    with closing(socket.socket()) as other:
        other.settimeout(5)
        with pytest.raises(ConnectionRefusedError):
            other.connect(("127.0.0.2", site.port))


def test_a_form_needs_our_origin_and_our_token(site: Site) -> None:
    fields = {"form": site.form_token(), "back": "/"}
    assert site.post("/again", fields).status == 303
    for wrong in (
        {"Origin": ""},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec_Fetch_Site": "cross-site"},
    ):
        assert site.post("/again", fields, **wrong).status == 403, wrong
    assert site.post("/again", {**fields, "form": "guessed"}).status == 403
    assert site.post("/again", fields, Cookie="").status == 403
    for target in ("http://evil.example/", "//evil.example", "/\\evil.example"):
        assert site.post("/again", {**fields, "back": target}).headers["Location"] == "/"
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"):
        assert site.ask(method, "/").status == 405
    assert site.post("/", fields).status == 405
    assert site.post("/again", {**fields, "x": "y" * 100_000}).status in (400, 413)


def test_every_answer_has_the_same_strict_headers(site: Site) -> None:
    """No script, style, form or frame but ours; nothing is kept or told to others."""
    answers = [
        site.get(each) for each in ("/", "/page.css", "/page.js", "/icon.svg", "/nowhere", "/compare", "/?token=x")
    ]
    answers.append(site.get("/", Host="evil.example"))
    assert [each.status for each in answers] == [200, 200, 200, 200, 404, 400, 403, 421]
    for answer in answers:
        policy = answer.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; style-src 'self'; script-src 'self';")
        assert "frame-ancestors 'none'" in policy
        assert "form-action 'self'" in policy
        assert "unsafe" not in policy
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["Referrer-Policy"] == "same-origin"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_hostile_names_and_values_are_only_text(site: Site, machine: Machine) -> None:
    """Wherever they stand: names of tables and columns, keys, values; in an address they come back as text, too."""
    for target in ("/", compared(machine, table=TABLE), compared(machine, table=TABLE, q=MARKUP, column=MARKUP)):
        text = site.finished(target).text
        assert "<img" not in text
        assert "<script>" not in text
        assert "\u202e" not in text
        assert "\0" not in text
    shown = site.finished(compared(machine, table=TABLE)).text
    assert html.escape(MARKUP, quote=True).replace("&#x27;", "&#39;").replace("&quot;", "&#34;") in shown
    assert "before\\x00after the NUL" in shown
    command = html.unescape(shown.partition("In a terminal: <code>")[2].partition("</code>")[0])
    assert shlex.split(command)[-1] == TABLE, "a command that is copied runs nothing but sidecar"
    assert "1,048,576 characters, SHA-256" in shown
    assert len(shown) < 300_000, "a text of 1 MiB is not in the page"
    assert "00ff3c696d673e" in shown
    assert len(LONG) > 20_000


def test_a_search_means_what_it_says(site: Site, machine: Machine) -> None:
    """`%` and `_` are no wildcards, quotes end nothing, and text behind a NUL is found."""

    def found(text: str) -> int:
        answer = site.finished(compared(machine, table=TABLE, q=text))
        assert answer.status == 200
        return answer.text.count("data-row")

    assert found("100%") == 1
    assert found("%") == 1
    assert found("it's \"quo") == 1
    assert found("after the NUL") == found("\0after") == found(NUL) == 1
    assert found("' OR 1=1 --") == found("_") == found("\ud800".encode("utf-8", "replace").decode() + "none") == 0
    assert found("LONG STORY") + found("long tale") == 1, "only as it is now, and whatever the case is"
    assert site.get(f"{compared(machine, table=TABLE)}&q=%ff%fe").status == 200
    orders = site.finished(compared(machine, table="orders", column="total")).text
    assert "1–50 of 302 rows" not in orders
    assert "1–50 of 301 rows" in orders


def test_an_impossible_page_or_state_is_no_error(site: Site, machine: Machine) -> None:
    """A page beyond the last one is the last one; a state that does not exist, or a file, is refused in words."""
    last = site.finished(compared(machine, table="orders", page="8")).text
    assert "Page 8 of 8" in last
    for number in (str(10**12), "9" * 18):
        assert "Page 8 of 8" in site.finished(compared(machine, table="orders", page=number)).text
    for number in ("-1", "x", "9" * 5000, "1e3", "0"):
        assert "Page 1 of 8" in site.finished(compared(machine, table="orders", page=number)).text, number
    assert site.get(path("/", page=str(10**12))).status == 200
    for state in (
        "/etc/passwd",
        str(machine.database),
        "../app.db",
        "nowhere/20261120T145503.123Z.sqlite3.zst",
        "newest~99",
    ):
        answer = site.finished(path("/compare", from_=state, to="live"))
        assert "cannot be compared" in answer.text
        assert 'class="rows"' not in answer.text
    assert "root:" not in site.finished(path("/compare", from_="/etc/passwd", to="live")).text
    for key in ("[1", "[[]]", "{}", "[NaN]", "9" * 40, "[1,2]", '["' + "\\u0000" + '"]'):
        assert site.finished(path("/row", table="orders", key=key)).status == 200
    assert "no state has a table" in site.finished(path("/row", table="none", key="[1]")).text


def test_it_opens_on_a_store_alone_and_ends_when_nobody_looks(machine: Machine, tmp_path: Path) -> None:
    """No daemon, no live database, another machine: what support does."""
    other = Machine.make(tmp_path, machine.store, clean_environment(tmp_path))
    with other.start("browse", "--idle", "2s") as process:
        site = Site(process)
        site.enter()
        text = site.finished("/").text
        assert "3 restore points" in text
        assert "live database" not in text
        assert "unusual: far more rows were removed" in text
        assert process.wait() == 0
    assert other.leftovers() == []


def phase(site: Site, wanted: str) -> str:
    """The page of what is brought back, once it says this."""
    found: list[str] = []

    def says_it() -> bool:
        found[:] = [site.get("/restoring").text]
        assert "Nothing was done" not in found[0], found[0]
        return wanted in found[0]

    eventually(says_it, 30, f"the page says {wanted!r}")
    return found[0]


def orders(machine: Machine) -> tuple[int, int]:
    """How many orders there are, and how many of them are cancelled."""
    with closing(connect(machine.database)) as db:
        found = db.execute("SELECT count(*), sum(status = 'cancelled') FROM orders").fetchone()
        return int(found[0]), int(found[1])


def test_rows_are_brought_back_only_where_that_is_allowed_and_confirmed(
    site: Site, machine: Machine, tmp_path: Path
) -> None:
    """
    1. A page without --allow-restore only names the command. 2. Where it is allowed, a preview is shown first, and a wrong name, or
    a preview that is another one, does nothing. 3. Confirmed, the rows that are gone are back; undone, they are gone again.
    """
    wish = {"table": "orders", "from": keys(machine)[1], "rows": "missing"}
    for target in ("/restore", "/confirm", "/undo", "/cancel"):
        assert site.post(target, {"form": site.form_token(), **wish}).status == 404
    shown = site.finished(compared(machine, table="orders")).text
    assert "Bring rows" not in shown
    assert f"sidecar restore --table orders --key {keys(machine)[0]} --into live" in shown
    own = Machine.make(tmp_path, f"file://{tmp_path}/store", clean_environment(tmp_path))
    prepare(own)
    wish["from"] = keys(own)[1]
    before = orders(own)
    with own.start("browse", "--allow-restore") as process:
        allowed = Site(process)
        allowed.enter()
        assert 'href="/restore?' in allowed.finished(compared(own, table="orders")).text
        form = {"form": allowed.form_token()}
        assert allowed.post("/restore", wish).status == 403, "a form of another site"
        assert allowed.post("/restore", {**form, **wish}).status == 303
        shown = phase(allowed, "This would be done")
        assert ">+60</span> inserted" in shown
        confirm = {**form, "started": re.findall(r'name="started" value="([^"]+)"', shown)[0]}
        assert "That is not the name" in allowed.post("/confirm", {**confirm, "name": "orders"}).text
        allowed.post("/confirm", {**confirm, "name": "app.db", "started": "2026-11-20T14:30:00+00:00"})
        assert "This would be done" in allowed.get("/restoring").text, "it still asks"
        assert orders(own) == before
        allowed.post("/confirm", {**confirm, "name": "app.db"})
        assert "60 rows" in phase(allowed, "Brought back")
        assert orders(own) == (before[0] + 60, before[1])
        allowed.post("/undo", form)
        shown = phase(allowed, "This would be done")
        confirm["started"] = re.findall(r'name="started" value="([^"]+)"', shown)[0]
        allowed.post("/confirm", {**confirm, "name": "app.db"})
        phase(allowed, "Undone")
        assert orders(own) == before
        allowed.post("/restore", {**form, **wish})
        phase(allowed, "This would be done")
        assert allowed.post("/cancel", form).headers["Location"] == "/"
        assert process.terminate() == 143
    assert orders(own) == before
