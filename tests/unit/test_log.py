"""The logger of the library, in processes of their own: what a program that embeds sidecar finds on its outputs."""

import subprocess
import sys

from tests.harness.environment import ROOT

PROGRAM = """
import logging, sys
import structlog
{configuring}
from sidecar.log import log
log.warning("restore point published", database="app.db", rate="5%s")
try:
    raise ValueError("reason")
except ValueError:
    log.exception("cycle failed because of a bug")
{afterwards}
"""


def outputs(configuring: str = "", afterwards: str = "") -> tuple[str, str]:
    """What the program prints on standard output and standard error."""
    program = PROGRAM.format(configuring=configuring, afterwards=afterwards)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    return done.stdout, done.stderr


def test_a_program_that_configures_nothing_hears_nothing() -> None:
    """Its standard output is its own; logging's last resort would print warnings on standard error."""
    assert outputs() == ("", "")


def test_nothing_is_configured_for_the_process() -> None:
    """structlog keeps its defaults for the program's own loggers; the root logger gets no handler."""
    afterwards = "print(structlog.is_configured(), logging.getLogger().handlers, logging.getLoggerClass().__name__)"
    assert outputs(afterwards=afterwards) == ("False [] Logger\n", "")


def test_lines_go_to_the_standard_library_once_it_is_configured() -> None:
    """One line with the details, below the level nothing, and the traceback of a bug."""
    out, err = outputs("logging.basicConfig(level=logging.WARNING)", 'log.info("too low to be shown")')
    assert out == ""
    assert "WARNING:sidecar:restore point published database='app.db' rate='5%s'\n" in err
    assert "ERROR:sidecar:cycle failed because of a bug\nTraceback" in err
    assert "ValueError: reason" in err
    assert "too low" not in err


def test_lines_go_to_structlog_once_it_is_configured() -> None:
    """Also when that happens after the import of sidecar."""
    out, err = outputs("structlog.configure(processors=[structlog.processors.JSONRenderer()])")
    assert '"event": "restore point published"' in out
    assert err == ""
    late = "structlog.configure(processors=[structlog.processors.JSONRenderer()]); log.info('configured late')"
    assert outputs(afterwards=late)[0] == '{"event": "configured late"}\n'


def test_every_module_logs_through_it() -> None:
    """A logger that a module gets from structlog itself would print into the program that embeds it."""
    package = ROOT / "sidecar"
    users = {str(path.relative_to(package)) for path in package.rglob("*.py") if "import structlog" in path.read_text()}
    assert users == {"log.py", "monitoring/logs.py"}
