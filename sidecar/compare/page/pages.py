"""What all screens have in common: the frame around them, and what a state is called."""

from datetime import datetime

from aiohttp import web

from sidecar.compare.page.access import FORM_TOKEN, Gate, Refused
from sidecar.compare.page.history import History
from sidecar.compare.page.rendering import age, render
from sidecar.compare.page.source import LIVE


class Pages:
    """Renders the screens of one database. With `changes` they may bring rows back."""

    def __init__(self, database: str, store: str, history: History, gate: Gate, *, changes: bool) -> None:
        self.database = database
        self.changes = changes
        self._store = store
        self._history = history
        self._gate = gate

    def page(self, template: str, **values: object) -> web.Response:
        """A screen."""
        now = self._history.now()
        text = render(
            template,
            database=self.database,
            store=self._store,
            changes=self.changes,
            trouble=self._history.trouble,
            form_token=self._gate.form_token,
            form_field=FORM_TOKEN,
            now=now,
            age=lambda at: age(at, now),
            **values,
        )
        return web.Response(text=text, content_type="text/html")

    def message(self, refused: Refused) -> web.Response:
        """A page that says why something is refused. It shows nothing of the database: anybody may get it."""
        text = render("message.html", title=refused.message, hint=refused.hint, status=int(refused.status))
        return web.Response(status=refused.status, text=text, content_type="text/html")

    def label(self, name: str) -> str:
        """What a state is called on the screen: its time, if it is a restore point."""
        point = next((each for each in self._history.points if each.key == name), None)
        if name == LIVE:
            return "now"
        return name if point is None else format_instant(point.timestamp.instant, self._history.now())

    def moment(self, name: str) -> str:
        """The name of a state in a row's life, as people read it."""
        if name == LIVE:
            return "now"
        try:
            return format_instant(datetime.fromisoformat(name), self._history.now())
        except ValueError:
            return name


def format_instant(at: datetime, now: datetime) -> str:
    """A time, with its day unless that is today."""
    return f"{at:%H:%M:%S}" if at.date() == now.date() else f"{at:%Y-%m-%d %H:%M:%S}"
