"""A page of `sidecar browse`, and a database whose names and values try to break it."""

import http.client
import re
from contextlib import closing
from dataclasses import dataclass
from http.cookies import SimpleCookie
from pathlib import Path
from urllib.parse import quote, urlencode

from tests.e2e.machine import Machine
from tests.harness.database_states import connect
from tests.harness.eventually import eventually
from tests.harness.sidecar_process import SidecarProcess

MARKUP = "<img src=x onerror=alert(1)>\"'</td><script>alert(2)</script>&amp;"
RIGHT_TO_LEFT = "\u202egnp.exe \u0645\u0631\u062d\u0628\u0627"
NUL = "before\0after the NUL"
LONG = "A long story. " * 1500
HUGE = "x" * (1 << 20)
TABLE = f"{MARKUP} \u05e9\u05dc\u05d5\u05dd"

STATES = (
    (
        "CREATE TABLE orders(id INTEGER PRIMARY KEY, customer INT, status TEXT, total, note TEXT)",
        "INSERT INTO orders SELECT value, value % 7, 'open', value * 1.5, 'note ' || value FROM generate",
        f'CREATE TABLE "{TABLE.replace(chr(34), chr(34) * 2)}"(k TEXT PRIMARY KEY, "a <b>" TEXT)',
        "CREATE TABLE untouched(a)",
    ),
    (
        "UPDATE orders SET status = 'cancelled', total = 0 WHERE id BETWEEN 100 AND 399",
        "INSERT INTO hostile VALUES ('markup', :markup), ('rtl', :rtl), ('nul', :nul), ('huge', :huge), ('long', :long)",
        "INSERT INTO hostile VALUES (:markup, '100% of it''s \"quoted\"'), ('blob', X'00ff3c696d673e')",
    ),
    (
        "DELETE FROM orders WHERE id <= 60",
        "UPDATE orders SET total = 600.0 WHERE id = 400",
        "UPDATE hostile SET \"a <b>\" = replace(:long, 'story', 'tale') WHERE k = 'long'",
    ),
)
LIVE = (
    "UPDATE orders SET total = 600, note = NULL WHERE id = 400",
    "INSERT INTO orders VALUES (9001, 1, 'open', 1, '')",
)


def write(path: Path, statements: tuple[str, ...]) -> None:
    """Run statements of the above."""
    generate = (
        "(WITH RECURSIVE n(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM n WHERE value < 500) SELECT * FROM n)"
    )
    hostile = '"' + TABLE.replace('"', '""') + '"'
    values = {"markup": MARKUP, "rtl": RIGHT_TO_LEFT, "nul": NUL, "huge": HUGE, "long": LONG}
    with closing(connect(path)) as db:
        for each in statements:
            db.execute(each.replace("FROM generate", f"FROM {generate}").replace(" hostile ", f" {hostile} "), values)


def prepare(machine: Machine) -> None:
    """Three restore points and a live database."""
    for statements in STATES:
        write(machine.database, statements)
        machine.publish()
    write(machine.database, LIVE)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request brought."""

    status: int
    headers: http.client.HTTPMessage
    text: str


class Site:
    """The page, over plain HTTP. `cookie` is that of the browser which opened the link."""

    def __init__(self, process: SidecarProcess) -> None:
        eventually(lambda: "token=" in process.stdout(), 30, "the link is printed")
        link = re.search(r"http://127\.0\.0\.1:(\d+)(/\S+)", process.stdout())
        assert link is not None
        self.port, self.link = int(link[1]), link[2]
        self.cookie = ""

    @property
    def base(self) -> str:
        """The address of the page."""
        return f"http://127.0.0.1:{self.port}"

    def enter(self) -> Answer:
        """Open the link, as a browser does."""
        answer = self.get(self.link)
        cookie = SimpleCookie(answer.headers.get("Set-Cookie", ""))
        self.cookie = "; ".join(f"{name}={each.value}" for name, each in cookie.items())
        return answer

    def get(self, path: str, **headers: str) -> Answer:
        """A request; a header that is given as an empty text is left out."""
        return self.ask("GET", path, **headers)

    def post(self, path: str, fields: dict[str, str], **headers: str) -> Answer:
        """A form of the page, unless the headers say otherwise."""
        given = {"Origin": self.base, "Content-Type": "application/x-www-form-urlencoded", **headers}
        return self.ask("POST", path, urlencode(fields), **given)

    def ask(self, method: str, path: str, body: str | None = None, **headers: str) -> Answer:
        """Any request."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            given = {"Host": f"127.0.0.1:{self.port}", "Cookie": self.cookie, **headers}
            given = {name.replace("_", "-"): value for name, value in given.items() if value}
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in given.items():
                connection.putheader(name, value)
            if body is not None:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body.encode() if body is not None else None)
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read().decode())

    def finished(self, path: str) -> Answer:
        """A page, once no work goes on for it."""
        found: list[Answer] = []

        def has_ended() -> bool:
            found[:] = [self.get(path)]
            return "data-busy" not in found[0].text

        eventually(has_ended, 30, f"{path} is complete")
        return found[0]

    def form_token(self) -> str:
        """What the page's forms send."""
        found = re.search(r'name="form" value="(\w+)"', self.get("/").text)
        assert found is not None
        return found[1]


def path(name: str, **parameters: str) -> str:
    """An address on the page."""
    given = {key.rstrip("_"): value for key, value in parameters.items()}
    return f"{name}?{urlencode(given, quote_via=quote)}"
