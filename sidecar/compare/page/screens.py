"""Answers requests: each screen is rendered here, from what is known now. Nothing is changed but what a form says."""

import json
from http import HTTPStatus
from typing import TypeVar

import anyio
from aiohttp import web

from sidecar.compare.display import visible
from sidecar.compare.page import compare_screen, timeline_screen
from sidecar.compare.page.access import Refused
from sidecar.compare.page.history import SHOWN, History
from sidecar.compare.page.jobs import Job, Jobs
from sidecar.compare.page.pages import Pages
from sidecar.compare.page.rendering import sentence, url
from sidecar.compare.page.source import LIVE, Source
from sidecar.compare.page.values import changed_field, named, short
from sidecar.compare.reading import KINDS, opened_result
from sidecar.compare.values import of_json
from sidecar.database import Driver

T = TypeVar("T")
AT_ONCE_SECONDS = 0.6  # a page waits so long for a job, before it says that it goes on


class Screens:
    """The screens of one database."""

    def __init__(self, source: Source, driver: Driver, history: History, jobs: Jobs, pages: Pages) -> None:
        self._source = source
        self._driver = driver
        self._history = history
        self._jobs = jobs
        self._pages = pages

    def routes(self) -> list[web.RouteDef]:
        """What there is."""
        return [
            web.get("/", self.timeline),
            web.get("/compare", self.compare),
            web.get("/row", self.life),
            web.post("/again", self.again),
        ]

    async def timeline(self, request: web.Request) -> web.Response:
        """What happened, and when?"""
        history = self._history
        await history.refresh()
        start = compare_screen.Asked.of(request.query, ()).page - 1
        pages = max(1, -(-len(history.points) // SHOWN))
        start = min(start, pages - 1)
        stretch = await history.stretch(start * SHOWN)
        live = start == 0 and self._source.has_live
        rows = timeline_screen.rows_of(history, stretch, live=live)
        return self._pages.page(
            "timeline.html",
            rows=rows,
            page=start + 1,
            pages=pages,
            total=len(history.points),
            has_live=live,
            timeline_link=lambda page: url("/", page=page),
        )

    async def compare(self, request: web.Request) -> web.Response:
        """What changed between two states?"""
        before, after = request.query.get("at") or request.query.get("from", ""), request.query.get("to", "")
        if not before or not after:
            raise Refused(HTTPStatus.BAD_REQUEST, "Two states are compared.", "Choose them on the timeline.")
        job = self._jobs.comparison(before.strip(), after.strip())
        await _wait_for(job)
        states = {"before": before, "after": after}
        if job.failure:
            return self._failed(
                job, f"{self._pages.label(before)} and {self._pages.label(after)} cannot be compared", **states
            )
        if not job.has_ended or job.result is None:
            return self._waiting(
                job, f"Comparing {self._pages.label(before)} with {self._pages.label(after)}", **states
            )
        asked = compare_screen.Asked.of(request.query, request.query.getall("kind", []))
        async with opened_result(self._driver, job.result) as result:
            overview = await compare_screen.Overview.of(result)
            table = overview.table(asked.table)
            rows = await compare_screen.rows_of(result, table, asked) if table else None

        def here(**changes: object) -> str:
            kinds = list(asked.kinds) if asked.kinds != KINDS else None
            given = {"table": table.name if table else None, "kind": kinds, "q": asked.text, "column": asked.column}
            given |= {"all": "1" if asked.everything else None}
            return url("/compare", **{"from": before, "to": after, **given, **changes})

        counted = {kind: overview.total(kind) for kind in ("added", "removed", "changed")}
        return self._pages.page(
            "compare.html",
            overview=overview,
            table=table,
            rows=rows,
            asked=asked,
            here=here,
            page_link=lambda page: here(page=page),
            told=sentence(counted),
            labels=(self._pages.label(before), self._pages.label(after)),
            compared_at=job.started,
            has_live=LIVE in (before, after),
            may_be_compared=self._source.has_live and LIVE not in (before, after),
            is_point=any(each.key == before for each in self._history.points),
            **states,
        )

    async def life(self, request: web.Request) -> web.Response:
        """What happened to one row?"""
        table, key = request.query.get("table", ""), request.query.get("key", "")
        if not table or not key:
            raise Refused(
                HTTPStatus.BAD_REQUEST, "A row is named by its table and its key.", "Open one from a comparison."
            )
        job = self._jobs.life(table, key)
        await _wait_for(job)
        if job.failure and not job.result:
            return self._failed(
                job,
                f"The history of this row of {table} cannot be shown",
                before="",
                after="",
                here=url("/row", table=table, key=key),
            )
        return self._pages.page(
            "life.html",
            table=table,
            key=key,
            key_of=_shown_key,
            job=job,
            changed_field=changed_field,
            named=named,
            moment=self._pages.moment,
            here=url("/row", table=table, key=key),
        )

    async def again(self, request: web.Request) -> web.Response:
        """Compare or count anew what is live."""
        form = await request.post()
        before, after, back = (str(form.get(name, "")) for name in ("from", "to", "back"))
        self._history.forget_live()
        self._jobs.forget(before, after)
        target = back if back.startswith(("/?", "/compare?", "/row?")) else "/"
        return web.Response(status=HTTPStatus.SEE_OTHER, headers={"Location": target})

    def _waiting(self, job: Job[T], title: str, **states: str) -> web.Response:
        return self._pages.page("waiting.html", title=title, job=job, **states)

    def _failed(self, job: Job[T], title: str, **states: str) -> web.Response:
        again = url("/compare", **{"from": states["before"], "to": states["after"]})
        return self._pages.page("failed.html", title=title, failure=job.failure, here=states.get("here", again))


def _shown_key(key: str) -> str:
    """A key of JSON for people; as it is, if it is none."""
    try:
        return ", ".join(short(of_json(each)) for each in json.loads(key))
    except (ValueError, TypeError, RecursionError):
        return visible(key)[:80]


async def _wait_for(job: Job[T]) -> None:
    with anyio.move_on_after(AT_ONCE_SECONDS):
        await job.finished.wait()
