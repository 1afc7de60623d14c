"""docs/json.md names every field of the status; tests/e2e/test_documented_json.py asks real commands and daemons."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sidecar.model import Database
from sidecar.status.model import Status
from sidecar.status.problems import Kind
from sidecar.status.serialize import as_json
from tests.docs.json_fields import JSON, documented, fields, undocumented


@pytest.mark.parametrize("store", ["s3://bucket", "file:///store"])
def test_every_field_of_the_status_is_documented(store: str) -> None:
    status = Status((Database("app.db", Path("/data/app.db")),), store, "1", lambda: datetime.now(UTC))
    status.enter("running", ready=True)
    status.published("app.db", "key", 1, 1, 0, 1, {"upload": 1.0})
    status.report("app.db", "message", "hint", Kind.NOTICE)
    assert undocumented("status", as_json(status)) == set()


def test_the_examples_of_list_have_every_documented_field() -> None:
    example, streams = [json.loads(fence.text) for fence in JSON.fences if fence.language == "json"]
    assert fields(example) - {"databases"} == documented("list") | {"outcome", "at"}
    assert fields(streams) - {"store", "databases", "streams", "key"} == documented("list --streams")
