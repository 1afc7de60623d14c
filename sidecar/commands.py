"""The one-shot commands. Each takes the configuration, prints for people or machines, and returns an exit status."""

import json
import shutil
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import anyio

from sidecar.compose import Parts, opened
from sidecar.config import Configuration, Settings, without_password
from sidecar.domain import Database, RestorePoint, Timestamp
from sidecar.errors import (
    ConfigurationError,
    DamagedRestorePoint,
    ExitCode,
    NotFound,
    NothingToRestore,
    SidecarError,
    UsageError,
)
from sidecar.locks import control_path, holder_of, local_locks
from sidecar.pipeline import first_failure
from sidecar.quantities import format_duration, format_size
from sidecar.replica import Replica, point_of
