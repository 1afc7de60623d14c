"""The app's own metrics, fetched and checked before they are appended to ours."""

from collections.abc import Callable

import aiohttp
import anyio
from anyio import to_thread

from sidecar.errors import ConfigurationError
from sidecar.log import log
from sidecar.storage import is_http, without_password

TIMEOUT = aiohttp.ClientTimeout(total=3)
LARGEST_REPLY = 2 << 20


class AppMetrics:
    """The app's metrics endpoint. A broken endpoint costs its own samples and nothing else."""

    def __init__(self, url: str, acceptable: Callable[[str], bool]) -> None:
        """Raises `ConfigurationError` when the URL is not an http URL."""
        if not is_http(url):
            raise ConfigurationError(
                f"app_metrics_url: {url!r} is not an http URL", "for example http://127.0.0.1:8000/metrics"
            )
        self._url = url
        self._acceptable = acceptable
        self._last_error = ""
        self._one_request = anyio.Lock(fast_acquire=True)
        self._asked = 0
        self._fetched = (0, "")

    async def fetch(self) -> str:
        """Return the app's metrics in Prometheus' text format, or an empty string when they cannot be used.

        Only the first of a series of errors is logged. However many callers ask at once, the app is asked, and its
        text parsed, once at a time; callers that waited share the result of a request made after they asked.
        """
        self._asked += 1
        mine = self._asked
        async with self._one_request:
            if self._fetched[0] < mine:
                self._fetched = (self._asked, await self._fetch())
            return self._fetched[1]

    async def _fetch(self) -> str:
        try:
            text, problem = await self._get()
        except (aiohttp.ClientError, TimeoutError, OSError, UnicodeDecodeError) as error:
            text, problem = "", str(error) or type(error).__name__
        if problem and not self._last_error:
            log.warning("app metrics left out", url=without_password(self._url).partition("?")[0], error=problem)
        self._last_error = problem
        return text

    async def _get(self) -> tuple[str, str]:
        async with aiohttp.ClientSession(timeout=TIMEOUT) as session:
            headers = {"Accept": "text/plain;version=0.0.4"}
            async with session.get(self._url, headers=headers, allow_redirects=False) as reply:
                body = await reply.content.read(LARGEST_REPLY + 1)
                while len(body) <= LARGEST_REPLY and (more := await reply.content.read(LARGEST_REPLY)):
                    body += more
        if reply.status != 200 or len(body) > LARGEST_REPLY:
            return "", f"status {reply.status}, {len(body)} bytes"
        text = body.decode()
        good = await to_thread.run_sync(self._acceptable, text)  # parsing takes 0.4 s a megabyte
        return (text, "") if good else ("", "it is not Prometheus text, or it uses metric names of sidecar")
