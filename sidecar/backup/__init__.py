"""Keeps databases protected: cycle, loop, final backup, fenced state, stream."""

from sidecar.backup.assembly import Repository, build_backup, build_stream
from sidecar.backup.coverage import Coverage
from sidecar.backup.cycle import Cycle
from sidecar.backup.diverged import Diverged, DivergedLine
from sidecar.backup.final import FinalBackup
from sidecar.backup.history import History, Start
from sidecar.backup.in_place import may_be_in_place
from sidecar.backup.loop import Backup
from sidecar.backup.main_line import MainLine
from sidecar.backup.on_demand import OnDemand, shown_in
from sidecar.backup.pace import Pace
from sidecar.backup.previous_images import ImageCache
from sidecar.backup.snapshot_check import SnapshotCheck
from sidecar.backup.source import Source
from sidecar.backup.stream import Stream
from sidecar.backup.stream_gate import Gate, looks, settling
from sidecar.backup.stream_writer import StreamOptions, StreamWriter

__all__ = [
    "Backup",
    "Coverage",
    "Cycle",
    "Diverged",
    "DivergedLine",
    "FinalBackup",
    "Gate",
    "History",
    "ImageCache",
    "MainLine",
    "OnDemand",
    "Pace",
    "Repository",
    "SnapshotCheck",
    "Source",
    "Start",
    "Stream",
    "StreamOptions",
    "StreamWriter",
    "build_backup",
    "build_stream",
    "looks",
    "may_be_in_place",
    "settling",
    "shown_in",
]
