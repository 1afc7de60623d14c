"""Progress: a bar for people, few lines for logs, and numbers that never go back."""

import io
import subprocess
import sys

import pytest
import structlog
from structlog.testing import capture_logs

from sidecar import progress
from sidecar.cli.main import run_command_line
from sidecar.cli.output import Table, say
from sidecar.progress import combined

MIB = 1 << 20


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_logs_get_one_line_each_ten_seconds_with_rate_and_time_left() -> None:
    """However often it is told; nothing at all for what is short."""
    clock = Clock()
    structlog.reset_defaults()
    with capture_logs() as lines:
        tell = progress._log_progress("restore app.db", clock)
        for second in range(1, 36):
            clock.now = second
            for _ in range(100):
                tell(second * MIB, 100 * MIB)
    assert [line["percent"] for line in lines] == [10, 20, 30]
    assert lines[1] == {
        "event": "restore app.db",
        "log_level": "info",
        "done": "20.0 MiB",
        "total": "100.0 MiB",
        "percent": 20,
        "rate": "1.0 MiB/s",
        "seconds_left": 80,
    }


def test_nothing_is_said_of_what_is_short() -> None:
    clock = Clock()
    with capture_logs() as lines:
        tell = progress._log_progress("restore app.db", clock)
        clock.now = 9.9
        tell(100, 100)
    assert lines == []


def test_what_stands_still_has_no_time_left_to_tell() -> None:
    clock = Clock()
    with capture_logs() as lines:
        tell = progress._log_progress("restore app.db", clock)
        clock.now = 10
        tell(0, 0)
    assert (lines[0]["percent"], lines[0]["seconds_left"]) == (0, None)


def test_several_things_are_one_progress() -> None:
    """Told in any order; each counts as much as it is large."""
    told: list[tuple[int, int]] = []
    of = combined(lambda done, total: told.append((done, total)), [100, 300])
    of(1)(5, 10)
    of(0)(1, 10)
    of(1)(10, 10)
    of(0)(10, 10)
    assert told == [(150, 400), (160, 400), (310, 400), (400, 400)]


def test_what_others_wrote_steers_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """A holder's name comes from the store, an error's text from whoever answered: no colours, no title, no lines anew."""
    table = Table("HOLDER", "KEY")
    table.add("m1\x1b]0;title\x07\r\x9b2J größe", "app.db/1")
    table.show(empty="")
    assert run_command_line(["no\x1b[31m such"]) == 64
    shown = capsys.readouterr()
    assert not set(shown.out + shown.err) & {"\x1b", "\x07", "\r", "\x9b"}
    assert "größe" in shown.out


@pytest.mark.parametrize(
    ("encoding", "shown"), [("utf-8", "Protected – needs attention"), ("latin-1", "Protected ? needs attention")]
)
def test_a_character_that_the_terminal_lacks_fails_no_command(
    encoding: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A heading with a dash, or a database with any name, on a terminal whose encoding is not UTF-8."""
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=encoding))
    say("Protected – needs attention")
    assert written.getvalue().decode(encoding) == f"{shown}\n"


def test_ctrl_c_while_the_program_is_still_being_loaded_prints_nothing() -> None:
    """Here the import itself raises what Python makes of the signal."""
    script = (
        "import sys\n"
        "class Interrupted:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'sidecar.cli.main': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupted())\n"
        "from sidecar.__main__ import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")
