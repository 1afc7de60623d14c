"""The recent problems that people should see: a bounded list, in which the important ones stay longest."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import overload

SHOWN = 20
OLD = timedelta(hours=24)


class Kind(StrEnum):
    """The kind of an event. People are notified of most; `PUBLISHED` and `PROTECTED` are for programs."""

    FAILURE = "failure"
    RECOVERY = "recovery"
    DIVERGENCE = "divergence"
    SUSPICION = "suspicion"
    DRILL = "drill"
    DAMAGED = "damaged"
    GROWTH = "growth"
    FINDING = "finding"
    EMPTY = "empty"
    FIRST_START = "first_start"
    ACKNOWLEDGED = "acknowledged"
    NOTICE = "notice"
    PUBLISHED = "published"
    PROTECTED = "protected"


_PASSING = {Kind.FAILURE, Kind.NOTICE}


@dataclass(slots=True)
class Problem:
    """A problem as people should see it. One that is `lasting` stays open until somebody acknowledges it, else for a day.

    `findings` are the digests of all that SQLite's check found, for the kind `FINDING`; its message names only the first.
    `full_check` says that some of them are seen by a full check only, so that no other can say that they are gone.
    """

    at: datetime
    database: str
    message: str
    hint: str
    kind: Kind = Kind.NOTICE
    lasting: bool = False
    findings: frozenset[str] = frozenset()
    full_check: bool = False

    @property
    def identity(self) -> tuple[Kind, str, str]:
        """Two problems with the same identity are repetitions of one."""
        return self.kind, self.database, " ".join(sorted(self.findings)) or self.message


class Problems(Sequence[Problem]):
    """The problems, oldest first. The limit grows with the number of databases.

    `held` are findings that people are told of once it is known whether they know them; None: they are told at once.
    """

    def __init__(self, databases: int) -> None:
        self._limit = max(SHOWN, 2 * databases)
        self._all: list[Problem] = []
        self.held: list[Problem] | None = None

    @overload
    def __getitem__(self, index: int) -> Problem: ...

    @overload
    def __getitem__(self, index: slice) -> list[Problem]: ...

    def __getitem__(self, index: int | slice) -> Problem | list[Problem]:
        return self._all[index]

    def __len__(self) -> int:
        return len(self._all)

    def add(self, problem: Problem) -> None:
        """Add the newest problem. A repetition replaces its predecessor, so that it cannot evict the others."""
        self.forget(problem)
        self._all.append(problem)
        self._trim(problem)

    def remember(self, problem: Problem) -> None:
        """Insert an older problem by its time. A problem that is there already gets the later time."""
        same = next((each for each in self._all if each.identity == problem.identity), None)
        if same and same.at >= problem.at:
            return
        self.forget(problem)
        later = sum(each.at >= problem.at for each in self._all)
        self._all.insert(len(self._all) - later, problem)
        self._trim(problem)

    def forget(self, problem: Problem) -> None:
        """Remove a problem."""
        self._all = [each for each in self._all if each.identity != problem.identity]

    def _trim(self, just: Problem) -> None:
        while len(self._all) > self._limit:
            others = [each for each in self._all if each is not just]
            self._all.remove(
                next(each for wanted in self._dispensable() if (each := next(filter(wanted, others), None)))
            )

    def _dispensable(self) -> Iterator[Callable[[Problem], bool]]:
        """Eviction order: the first non-empty class, oldest entry first.

        First old problems, then repeated failures, then those of the database with most problems, except losses and lasting
        ones. A failure is reported again while it lasts, a suspicion only once, and one database must not evict the problems
        of another.
        """
        newest = max(each.at for each in self._all)
        last = {each.database: each for each in self._all if each.kind in _PASSING}
        most = Counter(each.database for each in self._all).most_common(1)[0][0]
        yield lambda each: newest - each.at > OLD and not each.lasting
        yield lambda each: each.kind in _PASSING and last[each.database] is not each
        yield lambda each: each.database == most and each.kind not in {Kind.DAMAGED, *_PASSING} and not each.lasting
        yield lambda each: each.database == most
        yield lambda _each: True
