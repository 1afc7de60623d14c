"""The age of this process."""

import subprocess
import sys
import time

from sidecar.host import process_age

CHILD = "from sidecar.host import process_age; import time; a = process_age(); time.sleep(0.3); print(process_age() - a, process_age())"


def test_age_counts_from_the_start_of_the_process_not_from_the_import() -> None:
    before = time.monotonic()
    shown = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, check=True).stdout
    grown, age = map(float, shown.split())
    assert grown >= 0.29
    assert 0.3 <= age <= time.monotonic() - before + 0.02  # the kernel counts in hundredths


def test_a_running_process_only_grows_older() -> None:
    assert 0 < process_age() <= process_age()
