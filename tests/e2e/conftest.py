"""Machines for the end-to-end tests."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.fleet import Fleet
from tests.e2e.machine import Machine
from tests.harness.environment import clean_environment

if TYPE_CHECKING:
    from tests.harness.proxy import FaultProxy
    from tests.harness.seaweed import Seaweed


@pytest.fixture
def machine(tmp_path: Path, env: dict[str, str], bucket: str) -> Iterator[Machine]:
    """A machine whose store is a fresh bucket of the S3 server."""
    made = Machine.make(tmp_path, f"s3://{bucket}/shop", env)
    yield made
    made.sweep_memory()


@pytest.fixture
def proxied(machine: Machine, proxy: "FaultProxy") -> Machine:
    """`machine`, which reaches the S3 server through `proxy`."""
    return machine.with_env(AWS_ENDPOINT_URL_S3=proxy.endpoint)


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Machine]:
    """A machine whose store is a directory, for what does not depend on the kind of store."""
    made = Machine.make(tmp_path, f"file://{tmp_path}/store", clean_environment(tmp_path))
    yield made
    made.sweep_memory()


@pytest.fixture
def fleet(tmp_path: Path, seaweed: "Seaweed", bucket: str) -> Iterator[Fleet]:
    """Machines that share a fresh bucket."""
    with ExitStack() as stack:
        made = Fleet(tmp_path, seaweed, bucket, stack)
        yield made
    for member in made.members:
        member.machine.sweep_memory()
