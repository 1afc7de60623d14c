"""Names are looked up in threads, where nothing can cancel getaddrinfo(3): a name server that is silent holds it for 20 s and
more (resolv.conf(5)). No such thread holds up the end of the process, which has said by then how it ends.
"""

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import NoReturn


class _Unwaited(ThreadPoolExecutor):
    """The event loop shuts its executor down at its end, and would wait."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        super().shutdown(wait=False, cancel_futures=True)


def wait_for_no_lookup() -> None:
    """For this event loop, whose default executor has nothing else to do than lookups."""
    asyncio.get_running_loop().set_default_executor(_Unwaited(thread_name_prefix="lookup"))


def leave(code: int) -> NoReturn:
    """Exit; what was to be written has been flushed. The interpreter alone would join the threads."""
    if threading.active_count() > 1:
        os._exit(code)
    raise SystemExit(code)
