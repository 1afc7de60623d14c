"""`Snapshotter` without the right to read or write: in a process of its own, because root has every right."""

import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.harness.environment import ROOT, clean_environment
from tests.harness.processes import Child
from tests.harness.writers import create_ledger, open_database

UNPRIVILEGED = """
import os, sys
from pathlib import Path
import anyio
from sidecar.database.snapshot import SqliteSnapshotter
from sidecar.database.staging import Staging
from sidecar.errors import SidecarError
async def main():
    if os.getuid() == 0:  # here, when everything is imported: the interpreter may be root's own
        os.setgid(65534)
        os.setuid(65534)
    try:
        async with SqliteSnapshotter(Staging()).snapshot(Path(sys.argv[1])):
            pass
    except SidecarError as error:
        print(type(error).__name__, error)
anyio.run(main)
"""


@pytest.mark.parametrize(("file_mode", "folder_mode"), [(0o000, 0o777), (0o644, 0o555), (0o644, 0o000)])
def test_what_may_not_be_read_or_written_is_a_configuration_error(
    tmp_path: Path, file_mode: int, folder_mode: int
) -> None:
    """As a user without rights, which root is not; SQLite needs to write its lock files beside the database."""
    for parent in (tmp_path, *tmp_path.parents[:2]):
        parent.chmod(0o755)
    folder = tmp_path / "folder"
    folder.mkdir()
    path = folder / "app.db"
    with closing(open_database(path)) as connection:
        create_ledger(connection, 10)
    path.chmod(file_mode)
    folder.chmod(folder_mode)
    output = tmp_path / "output"
    environment = clean_environment(tmp_path, PYTHONPATH=ROOT)
    with output.open("wb") as stream:
        child = Child([sys.executable, "-c", UNPRIVILEGED, str(path)], environment, stdout=stream, stderr=stream)
    try:
        child.popen.wait(30)
    finally:
        child.kill()
        folder.chmod(0o755)
    assert output.read_text().startswith("ConfigurationError"), output.read_text()
