"""The logger of every module: structlog if this process has configured it, otherwise the standard library's `sidecar`.

structlog prints to standard output until it is configured, which would put our lines into the output of a program that
embeds sidecar. The logger `sidecar` is silent until that program configures logging, see
https://docs.python.org/3/howto/logging.html#configuring-logging-for-a-library.
"""

import logging
from typing import Any, cast

import structlog
from structlog.typing import EventDict, FilteringBoundLogger


def _as_line(_logger: object, _method: str, event: EventDict) -> tuple[tuple[str], dict[str, Any]]:
    """The event and its details in one line: as `extra` they could clash with the attributes of a log record."""
    words, trace = str(event.pop("event")), event.pop("exc_info", None)
    return (" ".join([words, *(f"{name}={value!r}" for name, value in event.items())]),), {"exc_info": trace}


_standard = logging.getLogger("sidecar")
_standard.addHandler(logging.NullHandler())
_fallback = structlog.wrap_logger(
    _standard,
    processors=[structlog.stdlib.filter_by_level, structlog.contextvars.merge_contextvars, _as_line],
    wrapper_class=structlog.stdlib.BoundLogger,
)


class _Log:
    """Decides at each line, because the process may configure structlog at any time."""

    def __getattr__(self, name: str) -> Any:
        return getattr(structlog.get_logger() if structlog.is_configured() else _fallback, name)


log = cast("FilteringBoundLogger", _Log())
