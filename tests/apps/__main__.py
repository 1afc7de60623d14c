"""`python -m tests.apps [NAME ...]`: real applications on machines that are lost; 1 when a row is missing.

The first run installs the applications below build/apps, for which it needs the package registries.
"""

import argparse
import signal
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.apps.catalogue import APPLICATIONS, Application
from tests.apps.installation import NotInstalled, install, sqlite_version
from tests.apps.rounds import Outcome, Trial
from tests.e2e.machine import Machine
from tests.harness.environment import clean_environment
from tests.harness.seaweed import Seaweed

BUCKET = "apps"
LONGEST = 600  # seconds, with the installation
HEAD = ("application", "version", "SQLite", "journal", "store", "after SIGTERM", "after kill -9", "at the end")


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these applications")
    names = parser.parse_args().names
    chosen = [application for application in APPLICATIONS if not names or application.name in names]
    if len(chosen) < len(names):
        parser.error(f"choose from {', '.join(application.name for application in APPLICATIONS)}")
    signal.signal(signal.SIGALRM, _give_up)
    signal.alarm(LONGEST)
    with tempfile.TemporaryDirectory() as directory, Seaweed(Path(directory, "seaweed")) as seaweed:
        seaweed.s3.make_bucket(BUCKET)
        tried = [_try(application, Path(directory), seaweed) for application in chosen]
    rows = [row for row, _ in tried]
    _print_table([HEAD, *rows])
    problems = [f"{row[0]}: {outcome.problem}" for row, outcome in tried if outcome.problem]
    for problem in problems:
        print(f"\n{problem}")
    print(f"\n{len(tried) - len(problems)} of {len(tried)} applications kept every row")
    return 1 if problems else 0


def _try(application: Application, directory: Path, seaweed: Seaweed) -> tuple[tuple[str, ...], Outcome]:
    """The application's row of the table, and the outcome behind it."""
    began = time.monotonic()
    print(f"{application.name} {application.version}: ", end="", flush=True)
    version = "-"
    try:
        programs = install(application)
        version = sqlite_version(application, programs)
    except NotInstalled as error:
        outcome = Outcome(problem=str(error))
    else:
        trial = Trial(application, programs, _machine(application, directory, seaweed))
        trial.run()
        outcome = trial.outcome
    print(f"{'FAILED' if outcome.problem else 'good'}, {time.monotonic() - began:.0f} s", flush=True)
    rounds = [*map(str, outcome.rounds), "-", "-", "-"][:3]
    return (application.name, application.version, version, outcome.journal_mode, application.store, *rounds), outcome


def _give_up(*_: object) -> None:
    raise SystemExit(f"not finished after {LONGEST} s; what is installed stays installed: run it again")


def _machine(application: Application, directory: Path, seaweed: Seaweed) -> Machine:
    name = application.name.rpartition("/")[2].lower()
    root = directory / name
    root.mkdir()
    store = f"s3://{BUCKET}/{name}" if application.store == "s3" else f"file://{root}/store"
    return Machine.make(root, store, clean_environment(root) | seaweed.environment())


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    print()
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


if __name__ == "__main__":
    raise SystemExit(main())
