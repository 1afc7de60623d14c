"""A daemon's open incidents, without the daemon: `python reporting.py STORE ENDPOINT NAME COUNT`, with `-` for no endpoint.

There is no lease, so nothing keeps two of these apart. Prints `ready`, and each incident once it is stored. When its
standard input ends it looks at the store once more, and prints what its page still shows.
"""

import sys
from pathlib import Path

import anyio
import anyio.lowlevel
from anyio import to_thread

from sidecar.host import SystemClock
from sidecar.lease import NoLease
from sidecar.model import Database
from sidecar.monitoring import Incidents
from sidecar.repository import Catalog
from sidecar.status import Kind, Status, open_incidents
from tests.integration.wiring import store_of

NAME = "app.db"


async def main(place: str, endpoint: str, name: str, count: int) -> None:
    """Report incidents as fast as they are stored."""
    async with store_of(place, None if endpoint == "-" else endpoint) as store:
        status = Status((Database(NAME, Path("/data/app.db")),), "store", "1", SystemClock().now)
        incidents = Incidents(Catalog(store), status, NoLease(store))
        print("ready", flush=True)
        await to_thread.run_sync(sys.stdin.readline)
        for number in range(count):
            status.report(NAME, f"{name} {number}", "", Kind.SUSPICION)
            while not await incidents.store_new():
                await anyio.lowlevel.checkpoint()
            print(f"{name} {number}", flush=True)
            if number % 2:
                await incidents.refresh(NAME)
        await to_thread.run_sync(sys.stdin.read)
        for _ in range(10):  # the other one may win a few times; sends nothing when nothing is new
            await incidents.store_new()
        await incidents.refresh(NAME)
        print("open", *(each.message.replace(" ", "-") for each in open_incidents(status, NAME)), flush=True)


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
