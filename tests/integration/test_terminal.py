"""What a person sees on a terminal while a long command logs: the bar below, every line of the log on a line of its own."""

import json
import os
import pty
import subprocess
import sys
from contextlib import suppress

PROGRAM = """
from sidecar import progress
from sidecar.log import log
from sidecar.monitoring.logs import configure

progress.BAR_AFTER = 0
configure("json", "info")
with progress.progress_bar("restore app.db") as report:
    report(1 << 20, 10 << 20)
    log.info("lease acquired")
    report(5 << 20, 10 << 20)
    log.warning("store slow")
log.info("database restored")
"""


def typescript(program: str) -> str:
    """All that a program writes to its terminal."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "30"}
    with subprocess.Popen([sys.executable, "-c", program], env=environment, stdout=theirs, stderr=theirs) as child:
        os.close(theirs)
        written = b""
        with suppress(OSError):  # Linux' word for the end of a terminal
            while some := os.read(ours, 65536):
                written += some
        os.close(ours)
    assert child.returncode == 0, written.decode()
    return written.decode()


def screen(written: str) -> list[str]:
    """The lines as they are in the end: a carriage return goes back, and what follows overwrites."""
    lines = []
    for line in written.replace("\r\n", "\n").split("\n"):
        shown = ""
        for part in line.split("\r"):
            shown = part + shown[len(part) :]
        lines.append(shown.rstrip())
    return lines


def test_a_log_line_does_not_share_its_line_with_the_bar() -> None:
    """The bar is taken away before a line is written, drawn again below it, and gone in the end."""
    written = typescript(PROGRAM)
    *lines, last = screen(written)
    assert [json.loads(line)["event"] for line in lines] == ["lease acquired", "store slow", "database restored"]
    assert last == ""
    before, between, after = written.split('{"timestamp"')[:3]
    assert all("restore app.db: " in part for part in (before, between, after))
    assert "10%" in between
    assert "50%" in after
