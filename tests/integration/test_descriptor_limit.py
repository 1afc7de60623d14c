"""The limit of open descriptors: raised for us, and as it was for the app."""

import subprocess
import sys

SCRIPT = """
import os, resource, subprocess, sys
soft, hard = int(sys.argv[1]), resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
from sidecar.host.runtime import given_limits, raise_descriptor_limit
raise_descriptor_limit()
files = [os.open("/dev/null", os.O_RDONLY) for _ in range(3 * soft)]
with given_limits():
    shown = subprocess.run(["sh", "-c", "ulimit -Sn; ulimit -Hn"], capture_output=False)
files.append(os.open("/dev/null", os.O_RDONLY))
print(hard, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


def test_our_limit_is_raised_and_children_get_the_one_we_were_given() -> None:
    """With more descriptors open than the old limit allows: the child is started all the same."""
    done = subprocess.run([sys.executable, "-c", SCRIPT, "64"], capture_output=True, text=True, check=True)
    child_soft, child_hard, ours = *done.stdout.split("\n")[:2], done.stdout.split("\n")[2].split()
    assert (child_soft, child_hard) == ("64", ours[0])
    assert int(ours[1]) == min(1 << 16, int(ours[0]))
