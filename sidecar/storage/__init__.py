"""Objects with conditional writes: the contract, retries and metering, one folder for each kind of store; `open` lists them."""

from sidecar.storage.abilities import Ability, abilities
from sidecar.storage.access import StaticKeys, StoreAccess
from sidecar.storage.base import (
    FIRST_BYTE_TIMEOUT,
    Credentials,
    Expired,
    FileBacked,
    Learner,
    Lifecycle,
    LifecycleRule,
    Neighbours,
    ObjectStore,
    Probe,
    Prunable,
    StoreLocation,
    Upload,
)
from sidecar.storage.decorator import Decorated
from sidecar.storage.looked_up import LookedUp
from sidecar.storage.metering import Metered
from sidecar.storage.open import parse_location, removal_command
from sidecar.storage.pruning import RetryingPrunable
from sidecar.storage.retry import Retrying, RetryPolicy
from sidecar.storage.traits import PartCopy, Traits
from sidecar.storage.urls import is_http, without_password

__all__ = [
    "FIRST_BYTE_TIMEOUT",
    "Ability",
    "Credentials",
    "Decorated",
    "Expired",
    "FileBacked",
    "Learner",
    "Lifecycle",
    "LifecycleRule",
    "LookedUp",
    "Metered",
    "Neighbours",
    "ObjectStore",
    "PartCopy",
    "Probe",
    "Prunable",
    "RetryPolicy",
    "Retrying",
    "RetryingPrunable",
    "StaticKeys",
    "StoreAccess",
    "StoreLocation",
    "Traits",
    "Upload",
    "abilities",
    "is_http",
    "parse_location",
    "removal_command",
    "without_password",
]
