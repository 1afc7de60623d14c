"""One writer: who may publish, for how long, and how that right is lost."""

from sidecar.lease.acquisition import unsuitable
from sidecar.lease.disabled import NoLease
from sidecar.lease.document import read_lease
from sidecar.lease.fence import Fence, WriterLease
from sidecar.lease.former import FormerLease
from sidecar.lease.lease import Lease
from sidecar.lease.record import KEY, Record, StreamRecord, origin_in
from sidecar.lease.rules import Identity

__all__ = [
    "KEY",
    "Fence",
    "FormerLease",
    "Identity",
    "Lease",
    "NoLease",
    "Record",
    "StreamRecord",
    "WriterLease",
    "origin_in",
    "read_lease",
    "unsuitable",
]
