"""Sets structlog up: lines for people on a terminal, JSON lines elsewhere, all on stderr."""

import io
import logging
import sys
from contextlib import suppress
from typing import TextIO

import structlog

from sidecar.host import QueuedStream
from sidecar.log import log
from sidecar.progress import bar_hidden


def configure(log_format: str, level: str) -> None:
    """Configure logging. `log_format` is auto, console or json; `level` is the lowest level shown."""
    console = log_format == "console" or (log_format == "auto" and sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    rendering: list[structlog.typing.Processor] = (
        [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
        if console
        else [structlog.processors.format_exc_info, _event_first, structlog.processors.JSONRenderer(ensure_ascii=False)]
    )
    structlog.configure(
        processors=[*shared, *rendering],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        logger_factory=structlog.WriteLoggerFactory(_Unbreakable(sys.stderr)),  # a line is one write
        cache_logger_on_first_use=False,
    )
    # Libraries that use the standard logging module are shown only when something is wrong.
    logging.basicConfig(level=logging.ERROR, stream=sys.stderr, format="%(name)s: %(message)s")
    if isinstance(sys.stderr, QueuedStream):
        sys.stderr.on_resumed = _log_dropped


def _log_dropped(lines: int) -> None:
    hint = "nobody read standard error for a while; the app and sidecar share it"
    log.warning("log lines dropped", lines=lines, hint=hint)


class _Unbreakable(io.StringIO):
    """A stream that never raises: a log reader that has exited, or a full disk, must not stop the daemon."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError), bar_hidden():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()


def _event_first(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Put time, level and event before the details, for people who read JSON."""
    head = {name: event.pop(name) for name in ("timestamp", "level", "event") if name in event}
    return {**head, **event}
