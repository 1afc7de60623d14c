"""Keeps pending DNS lookups from delaying the exit of the process.

Lookups run in threads, where nothing can cancel getaddrinfo(3): a silent name server blocks it for 20 s and more
(resolv.conf(5)). These threads never delay the exit; the exit status is already decided.
"""

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import NoReturn


class _Unwaited(ThreadPoolExecutor):
    """An executor that the event loop does not wait for when it closes."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        super().shutdown(wait=False, cancel_futures=True)


def wait_for_no_lookup() -> None:
    """Set this up for the running event loop, whose default executor does nothing but lookups."""
    asyncio.get_running_loop().set_default_executor(_Unwaited(thread_name_prefix="lookup"))


def leave(code: int) -> NoReturn:
    """Exit after all output was flushed. Left to itself the interpreter would join the threads."""
    if threading.active_count() > 1:
        os._exit(code)
    raise SystemExit(code)
