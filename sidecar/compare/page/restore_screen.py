"""The fourth screen: bring rows back. It is there only where `--allow-restore` was given."""

from http import HTTPStatus

from aiohttp import web

from sidecar.compare.page.access import Refused
from sidecar.compare.page.history import History
from sidecar.compare.page.jobs import Jobs
from sidecar.compare.page.pages import Pages
from sidecar.compare.page.restoring import Restorer


class RestoreScreen:
    """Asks what to bring back, shows what that would do, and how it goes."""

    def __init__(self, pages: Pages, restorer: Restorer, history: History, jobs: Jobs) -> None:
        self._pages = pages
        self._restorer = restorer
        self._history = history
        self._jobs = jobs

    def routes(self) -> list[web.RouteDef]:
        """What there is."""
        return [
            web.get("/restore", self.ask),
            web.get("/restoring", self.show),
            web.post("/restore", self.begin),
            web.post("/confirm", self.confirm),
            web.post("/cancel", self.cancel),
            web.post("/undo", self.undo),
        ]

    async def ask(self, request: web.Request) -> web.Response:
        """What is to be brought back?"""
        table, state = request.query.get("table", ""), request.query.get("from", "")
        if not table or not state:
            raise Refused(
                HTTPStatus.BAD_REQUEST, "A table of a state is brought back.", "Compare a state with the live database."
            )
        if self._restorer.is_busy:
            return _see("/restoring")
        return self._pages.page("restore.html", table=table, state=state, label=self._pages.label(state))

    async def show(self, _request: web.Request) -> web.Response:
        """What would be done, or how it goes?"""
        job = self._restorer.current
        if job is None:
            return _see("/")
        if job.outcome is not None:
            self._history.forget_live()
            self._jobs.forget_live()
        return self._pages.page("restoring.html", job=job, label=self._pages.label(job.state), wrong=False)

    async def begin(self, request: web.Request) -> web.Response:
        """Prepare it: nothing is written yet."""
        form = await request.post()
        table, state = str(form.get("table", "")), str(form.get("from", ""))
        if table and state:
            self._restorer.begin(table, state, str(form.get("rows", "missing")))
        return _see("/restoring")

    async def confirm(self, request: web.Request) -> web.Response:
        """Do it, if the name of the database was typed, and if it is still what was shown."""
        form, job = await request.post(), self._restorer.current
        if job is None or form.get("started") != job.started.isoformat():
            return _see("/restoring")
        if str(form.get("name", "")).strip() != self._pages.database:
            return self._pages.page("restoring.html", job=job, label=self._pages.label(job.state), wrong=True)
        self._restorer.confirm()
        return _see("/restoring")

    async def cancel(self, _request: web.Request) -> web.Response:
        """Do nothing."""
        self._restorer.cancel()
        return _see("/")

    async def undo(self, _request: web.Request) -> web.Response:
        """Prepare to undo the last one."""
        self._restorer.begin("", "", "")
        return _see("/restoring")


def _see(path: str) -> web.Response:
    return web.Response(status=HTTPStatus.SEE_OTHER, headers={"Location": path})
