"""Waiting until commits are stored, with a real log that a real app writes, and a store that answers when the test says so."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import pytest

from sidecar.backup.confirmations import Confirmed
from sidecar.database.wal import Limits
from sidecar.errors import NotDurable
from sidecar.model import Bytes, Condition, ObjectInfo, Position
from tests.fakes import MemoryStore
from tests.harness.sql_process import SqlProcess
from tests.integration.streaming import Streaming

pytestmark = pytest.mark.anyio


class Slow(MemoryStore):
    """A store that takes segments, and does not answer while it is `held`."""

    def __init__(self) -> None:
        super().__init__()
        self.held = False
        self._answers = anyio.Event()

    async def put(self, key: str, data: Bytes, *, condition: Condition = None, **others: Any) -> ObjectInfo:
        """See `base.ObjectStore`."""
        info = await super().put(key, data, condition=condition, **others)
        while self.held:
            await self._answers.wait()
        return info

    def let_go(self) -> None:
        """Answer."""
        self.held = False
        self._answers.set()
        self._answers = anyio.Event()


@dataclass
class Running:
    """A stream under way. `answers` has what each waiter was told, in the order in which they were."""

    app: SqlProcess
    store: Slow
    streaming: Streaming
    group: anyio.abc.TaskGroup
    publishing: anyio.CancelScope
    answers: list[Confirmed | NotDurable] = field(default_factory=list)

    async def confirmed(self) -> Confirmed:
        with anyio.fail_after(20):
            return await self.streaming.stream.confirmations.confirmed()

    def start_waiting(self, count: int) -> None:
        async def one() -> None:
            try:
                self.answers.append(await self.confirmed())
            except NotDurable as error:
                self.answers.append(error)

        for _ in range(count):
            self.group.start_soon(one)

    async def answered(self, count: int) -> None:
        with anyio.fail_after(20):
            while len(self.answers) < count:
                await anyio.sleep(0.005)

    async def published(self) -> int:
        """The last commit in the store, whatever was answered to those who sent it."""
        return max((each.last for stream in await self.streaming.published() for each in stream.segments), default=0)

    async def until_waiting(self, count: int) -> None:
        """All of them have looked at the log, and wait for a segment."""
        waiters = self.streaming.stream.confirmations._waiters
        with anyio.fail_after(20):
            while len(waiters) < count:
                await anyio.sleep(0.005)

    @property
    def puts(self) -> int:
        return self.store.count("put")


@asynccontextmanager
async def running(path: Path, limits: Limits | None = None) -> AsyncIterator[Running]:
    """It protects from the beginning: the database is as a restore point has it."""
    store = Slow()
    with SqlProcess(path) as app:
        app.run("CREATE TABLE t(a)")
        streaming = Streaming(store, path, limits=limits)
        async with streaming.capture.running():
            await streaming.stream.begin(Position("before", 1), None, None)
            publishing = anyio.CancelScope()

            async def publish() -> None:
                with publishing:
                    await streaming.stream.run(lambda _reason: None, lambda _when: None)

            async with anyio.create_task_group() as group:
                group.start_soon(publish)
                yield Running(app, store, streaming, group, publishing)
                store.let_go()
                group.cancel_scope.cancel()


async def test_yes_comes_after_the_store_has_answered_for_the_segment(tmp_path: Path) -> None:
    async with running(tmp_path / "app.db") as stream:
        stream.store.held = True
        stream.app.run("INSERT INTO t VALUES (1)")
        stream.start_waiting(3)
        await stream.until_waiting(3)
        with anyio.fail_after(20):
            while not await stream.published():
                await anyio.sleep(0.005)
        assert stream.answers == [], "the store has it, and nobody knows that yet"
        stream.store.let_go()
        await stream.answered(3)
        assert {each.commit for each in stream.answers if isinstance(each, Confirmed)} == {1}


async def test_a_hundred_waiters_share_a_segment_and_cost_no_request(tmp_path: Path) -> None:
    async with running(tmp_path / "app.db") as stream:
        stream.store.held = True
        stream.app.run("INSERT INTO t VALUES (1)")
        stream.start_waiting(1)
        await stream.until_waiting(1)
        for number in range(100):
            stream.app.run(f"INSERT INTO t VALUES ({number})")
            stream.start_waiting(1)
        await stream.until_waiting(101)
        stream.store.let_go()
        await stream.answered(101)
        assert stream.puts == 2
        assert await stream.published() == 101
        before = len(stream.store.requests)
        stream.start_waiting(100)
        await stream.answered(201)
        assert len(stream.store.requests) == before, "nothing is new"
        assert all(isinstance(each, Confirmed) for each in stream.answers)


async def test_what_was_captured_before_a_cut_is_stored_and_what_came_after_is_not(tmp_path: Path) -> None:
    """
    The app replaces its database's file, and commits into the new one, before anybody has noticed.
    Result: the wait after that ends with the cut; it is never answered for what the old file's log has.
    """
    path = tmp_path / "app.db"
    with SqlProcess(tmp_path / "new.db") as other:
        other.run("CREATE TABLE t(a)")
        other.run("PRAGMA wal_checkpoint(TRUNCATE)")
    async with running(path) as stream:
        stream.app.run("INSERT INTO t VALUES (1)")
        assert (await stream.confirmed()).commit == 1
        os.replace(tmp_path / "new.db", path)
        for suffix in ("-wal", "-shm"):
            os.unlink(f"{path}{suffix}")
        with SqlProcess(path) as later:
            later.run("INSERT INTO t VALUES (2)")
            with pytest.raises(NotDurable, match=r"cut|nothing is streamed"):
                await stream.confirmed()
        with anyio.fail_after(20):
            while not stream.streaming.status.cuts["replaced"] or stream.streaming.status.active:
                await anyio.sleep(0.005)
        with pytest.raises(NotDurable) as refused:
            await stream.confirmed()
        assert refused.value.retry_after is not None
        assert 1 <= refused.value.retry_after <= 60


@pytest.mark.parametrize("closes", [False, True])
async def test_a_database_that_nobody_had_open_is_looked_at_again(tmp_path: Path, closes: bool) -> None:
    """
    The app closes its database, and the follower lets go of it. Then another process opens it, commits and asks at once.
    Result: its commit is stored before the answer; where it has closed the database again before anybody looked, so that its
    log is gone, it is told that this is not known.
    """
    path = tmp_path / "app.db"
    async with running(path, Limits(lone_seconds=0.05)) as stream:
        stream.app.run("INSERT INTO t VALUES (1)")
        stream.app.close()
        follower = stream.streaming.feed._track.follower  # type: ignore[union-attr]
        with anyio.fail_after(20):
            while follower.away is None:
                await anyio.sleep(0.02)
        with SqlProcess(path) as later:
            later.run("INSERT INTO t VALUES (2)")
            if closes:
                later.close()
            found: Confirmed | None = None
            with suppress(NotDurable):
                found = await stream.confirmed()
        assert (closes and found is None) or (found and found.commit == 2 == await stream.published())


async def test_an_end_answers_for_the_last_segment_and_refuses_after_it(tmp_path: Path) -> None:
    async with running(tmp_path / "app.db") as stream:
        stream.publishing.cancel()
        await anyio.wait_all_tasks_blocked()
        stream.app.run("INSERT INTO t VALUES (1)")
        stream.start_waiting(2)
        await stream.until_waiting(2)
        await stream.streaming.stream.finish()
        await stream.answered(2)
        assert all(isinstance(each, Confirmed) for each in stream.answers)
        stream.app.run("INSERT INTO t VALUES (2)")
        with pytest.raises(NotDurable, match="stopping, with a final backup"):
            await stream.confirmed()
