"""Who chose WAL mode for the databases of this process: the app, or sidecar, which switches databases of other modes.

An app that chose it will hardly set another one when it opens the database next time. One that did not choose may do so at
every start, and cannot while we have the database open.
"""

from collections.abc import Iterable
from pathlib import Path

from sidecar.database.lineage import Lineage, wal_by_recorded
from sidecar.model import WalBy


class WalOrigins:
    """What is known of each path; kept in the lineage marker, for the next start. For use in the event loop."""

    def __init__(self) -> None:
        self._known: dict[Path, WalBy] = {}
        self._lineages: dict[Path, Lineage] = {}

    def keep_in(self, lineages: Iterable[tuple[Path, Lineage]]) -> None:
        """Record what is found out in these markers from now on."""
        self._lineages.update(lineages)

    def of(self, path: Path) -> WalBy | None:
        """Who chose it; None where that was never seen."""
        return self._known.get(path) or wal_by_recorded(path)

    def found_wal(self, path: Path) -> WalBy:
        """The database is in WAL mode. If nothing is known of it, that was the app's choice."""
        return self._record(path, self.of(path) or WalBy.APP)

    def not_chosen(self, path: Path) -> None:
        """We are about to switch the database, or the app has set another mode: WAL is not the app's choice, for good."""
        self._record(path, WalBy.SIDECAR)

    def _record(self, path: Path, who: WalBy) -> WalBy:
        if self._known.get(path) is not who:
            self._known[path] = who
            if lineage := self._lineages.get(path):
                lineage.chose_wal(who)
        return who
