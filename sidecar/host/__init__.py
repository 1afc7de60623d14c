"""This machine: files, mounts, locks, users, processes, memory, clock."""

from sidecar.host.accounts import account_of, to_become
from sidecar.host.clock import Clock, SystemClock, kernel_boot, process_age
from sidecar.host.creations import Creation, Seen
from sidecar.host.descendants import Descendants, Process
from sidecar.host.endpoints import OWN, canonical
from sidecar.host.failures import failed, is_failure, local_errors
from sidecar.host.files import (
    Swap,
    aside,
    is_durable,
    kept_aside,
    mark_done,
    require_room,
    require_unused,
    require_writable,
    swap,
    sync,
    temporary,
    write_all,
    write_new,
)
from sidecar.host.locks import control_path, holder_of, local_locks
from sidecar.host.memory import return_free_pages
from sidecar.host.mounts import Mount, mount_of
from sidecar.host.openers import Identity, Opener, OpenFile, identity_of, shows_locks
from sidecar.host.ownership import hand_over, require_to_be_given
from sidecar.host.permissions import (
    Entrust,
    give_restored,
    make_directory,
    may_give_away,
    narrowed,
    obstacle,
    permissions_of,
    unsaid_user,
)
from sidecar.host.process import App, Child, Reaper, require_command, take_terminal_back
from sidecar.host.process_table import Proc, become_subreaper, having_open, read
from sidecar.host.runtime import resume_collection, tune_process
from sidecar.host.signals import STOPPING, format_signal, passed_on
from sidecar.host.stderr import QueuedStream, dropped_lines

__all__ = [
    "OWN",
    "STOPPING",
    "App",
    "Child",
    "Clock",
    "Creation",
    "Descendants",
    "Entrust",
    "Identity",
    "Mount",
    "OpenFile",
    "Opener",
    "Proc",
    "Process",
    "QueuedStream",
    "Reaper",
    "Seen",
    "Swap",
    "SystemClock",
    "account_of",
    "aside",
    "become_subreaper",
    "canonical",
    "control_path",
    "dropped_lines",
    "failed",
    "format_signal",
    "give_restored",
    "hand_over",
    "having_open",
    "holder_of",
    "identity_of",
    "is_durable",
    "is_failure",
    "kept_aside",
    "kernel_boot",
    "local_errors",
    "local_locks",
    "make_directory",
    "mark_done",
    "may_give_away",
    "mount_of",
    "narrowed",
    "obstacle",
    "passed_on",
    "permissions_of",
    "process_age",
    "read",
    "require_command",
    "require_room",
    "require_to_be_given",
    "require_unused",
    "require_writable",
    "resume_collection",
    "return_free_pages",
    "shows_locks",
    "swap",
    "sync",
    "take_terminal_back",
    "temporary",
    "to_become",
    "tune_process",
    "unsaid_user",
    "write_all",
    "write_new",
]
