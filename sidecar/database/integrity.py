"""SQLite's own integrity check, of files that nobody writes to: restored databases, drills, verification."""

from pathlib import Path

import structlog

from sidecar.database.base import YieldToApp
from sidecar.database.driver import Driver, default_driver
from sidecar.database.errors import needs_the_app
from sidecar.database.queries import reading
from sidecar.errors import DamagedDatabase

log = structlog.get_logger()


class SqliteIntegrity:
    """Implements `base.IntegrityCheck`."""

    def __init__(self, driver: Driver | None = None) -> None:
        self._driver = driver or default_driver()

    async def check(self, path: Path, mode: str, yield_to_app: YieldToApp | None = None) -> None:
        """See `base.IntegrityCheck`."""
        if mode == "none":
            return
        verdict = await self._verdict(path, "integrity_check(1)" if mode == "full" else "quick_check(1)", yield_to_app)
        if verdict != "ok":
            raise DamagedDatabase(f"{path} fails SQLite's {mode} integrity check: {verdict}")

    async def _verdict(self, path: Path, pragma: str, yield_to_app: YieldToApp | None) -> str:
        with self._driver.translated(path):
            try:
                async with reading(self._driver, path, yield_to_app=yield_to_app) as database:
                    verdict: bytes = await database.value(f"PRAGMA {pragma}")
            except self._driver.error as error:
                if not needs_the_app(error):
                    raise
                log.warning("integrity check skipped", error=str(error), hint="it needs an extension of the app")
                return "ok"
        return verdict.decode(errors="replace")
