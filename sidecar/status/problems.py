"""What people should see of what went wrong: so many at most, and what is worth seeing longest stays longest."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import overload

SHOWN = 20
OLD = timedelta(hours=24)


class Kind(StrEnum):
    """What an event is: the first ones are told to people, `PUBLISHED` and `PROTECTED` are good news for programs."""

    FAILURE = "failure"
    RECOVERY = "recovery"
    DIVERGENCE = "divergence"
    SUSPICION = "suspicion"
    DRILL = "drill"
    DAMAGED = "damaged"
    GROWTH = "growth"
    NOTICE = "notice"
    PUBLISHED = "published"
    PROTECTED = "protected"


_PASSING = {Kind.FAILURE, Kind.NOTICE}


@dataclass(slots=True)
class Problem:
    """A failure as people should see it."""

    at: datetime
    database: str
    message: str
    hint: str
    kind: Kind = Kind.NOTICE

    @property
    def words(self) -> tuple[Kind, str, str]:
        """What makes two of them the same, said at different times."""
        return self.kind, self.database, self.message


class Problems(Sequence[Problem]):
    """Oldest first. There is room for some of each of so many databases."""

    def __init__(self, databases: int) -> None:
        self._limit = max(SHOWN, 2 * databases)
        self._all: list[Problem] = []

    @overload
    def __getitem__(self, index: int) -> Problem: ...

    @overload
    def __getitem__(self, index: slice) -> list[Problem]: ...

    def __getitem__(self, index: int | slice) -> Problem | list[Problem]:
        return self._all[index]

    def __len__(self) -> int:
        return len(self._all)

    def add(self, problem: Problem) -> None:
        """The newest one; said again and again, it does not push the others out of sight."""
        self.forget(problem)
        self._all.append(problem)
        self._trim(problem)

    def remember(self, problem: Problem) -> None:
        """One of before, in its place by time; one that is there already gets the later time."""
        same = next((each for each in self._all if each.words == problem.words), None)
        if same and same.at >= problem.at:
            return
        self.forget(problem)
        later = sum(each.at >= problem.at for each in self._all)
        self._all.insert(len(self._all) - later, problem)
        self._trim(problem)

    def forget(self, problem: Problem) -> None:
        """It is no more to be seen."""
        self._all = [each for each in self._all if each.words != problem.words]

    def _trim(self, just: Problem) -> None:
        while len(self._all) > self._limit:
            others = [each for each in self._all if each is not just]
            self._all.remove(
                next(each for wanted in self._dispensable() if (each := next(filter(wanted, others), None)))
            )

    def _dispensable(self) -> Iterator[Callable[[Problem], bool]]:
        """What may go, the first of these that there is one of, the oldest first.

        What is old; what has happened again since; of the database that has most to say, all but losses. A failure comes again while it is
        true, a suspicion is said once; that of one database does not push out another's.
        """
        newest = max(each.at for each in self._all)
        last = {each.database: each for each in self._all if each.kind in _PASSING}
        most = Counter(each.database for each in self._all).most_common(1)[0][0]
        yield lambda each: newest - each.at > OLD
        yield lambda each: each.kind in _PASSING and last[each.database] is not each
        yield lambda each: each.database == most and each.kind is not Kind.DAMAGED and each.kind not in _PASSING
        yield lambda each: each.database == most
        yield lambda _each: True
