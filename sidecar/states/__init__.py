"""The states of a database that a person names: opened, compared, listed as a timeline, brought back in part."""

from sidecar.states.naming import (
    LIVE,
    Place,
    States,
    compare_states,
    difference,
    difference_of_files,
    is_path,
    opened_file_to_export,
    opened_state,
    scratch_place,
)

__all__ = [
    "LIVE",
    "Place",
    "States",
    "compare_states",
    "difference",
    "difference_of_files",
    "is_path",
    "opened_file_to_export",
    "opened_state",
    "scratch_place",
]
