"""A store that is not known by its endpoint: tried once in the background, and from then on believed by every machine.

The test starts three processes one after the other.
"""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.harness import imitations
from tests.harness.environment import clean_environment
from tests.harness.proxy import FaultProxy
from tests.harness.seaweed import Seaweed
from tests.harness.sidecar_process import SidecarProcess, run_cli

pytestmark = pytest.mark.s3

TRAITS = ".sidecar/traits.json"


def test_an_unknown_store_is_tried_once(seaweed: Seaweed, bucket: str, tmp_path: Path) -> None:
    """1. A first start. 2. What was found out is in the store. 3. Another machine restores, recalls it and tries nothing.

    4. A store with nothing but that is as good as empty.
    """
    with FaultProxy(seaweed.port, imitations.r2()) as proxy:
        env = clean_environment(tmp_path) | seaweed.environment(endpoint=proxy.endpoint)
        env |= {"SIDECAR_DATABASES": "app.db", "SIDECAR_STORE": f"s3://{bucket}/app"}
        first, second = tmp_path / "first", tmp_path / "second"
        for folder in (first, second):
            folder.mkdir()
        with closing(sqlite3.connect(first / "app.db")) as app:
            app.execute("create table t(n)")
        with SidecarProcess("run", "--", "sleep", "60", env=env, directory=first) as daemon:
            daemon.wait_for_log("store probed")
            assert daemon.terminate() == 143
        tried = len(proxy.seen("PUT", ".sidecar/probe/"))
        remembered = seaweed.s3.get(bucket, f"app/{TRAITS}")
        assert tried
        assert b'"part_copy": "unconditional"' in remembered
        assert b'"tags": false' in remembered
        with SidecarProcess("run", "--", "sleep", "60", env=env, directory=second) as daemon:
            proxy.wait_seen("GET", TRAITS, count=2, timeout=30)
            assert daemon.terminate() == 143
        assert (second / "app.db").exists()
        assert len(proxy.seen("PUT", ".sidecar/probe/")) == tried
        seaweed.s3.put(bucket, f"new/{TRAITS}", remembered)
        seaweed.s3.put(bucket, "new/.sidecar/probe/object", b"x")
        env |= {"SIDECAR_STORE": f"s3://{bucket}/new", "SIDECAR_ON_EMPTY_STORE": "fail"}
        third = run_cli("run", "--", "true", env=env, cwd=tmp_path)
        assert third.returncode == 66, third.stderr
