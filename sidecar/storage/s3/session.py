"""The SDK's session. Every client is made from a session that is made here."""

import gzip
import json
from pathlib import Path
from typing import Any

from aiobotocore.session import AioSession, get_session
from botocore.loaders import JSONFileLoader

from sidecar.storage.s3.configuration import (
    read_environ,
    require_configuration,
    use_credential_variables,
    use_variables,
)

_DOCUMENTATION = {"documentation", "documentationUrl"}
# Their names in endpoints.json: the store, and the services that the SDK's own search for credentials calls.
_CALLED = ("s3", "sts", "oidc", "portal.sso")


def new_session() -> AioSession:
    """A session that loads only those of the SDK's descriptions that a client needs, and reads its variables stripped.

    Raises `ConfigurationError` where its configuration is wrong.
    """
    session = get_session()
    environ = read_environ()
    use_variables(session, environ)  # before anything reads a setting: the session keeps its profile
    session.get_component("data_loader").file_loader = _Descriptions()
    require_configuration(session)
    use_credential_variables(session, environ)
    return session


class _Descriptions(JSONFileLoader):  # type: ignore[misc] # botocore has no types
    """Reads the SDK's descriptions as ordinary dicts, without documentation and without the endpoints of other services.

    They stay in memory for as long as a client lives. Measured with a client of S3: 9 MB and 40 ms less.
    """

    def load_file(self, file_path: str) -> Any:
        """The description at a path without its extension, or None."""
        plain, packed = Path(f"{file_path}.json"), Path(f"{file_path}.json.gz")
        needed = _endpoints if plain.name == "endpoints.json" else _undocumented
        if plain.is_file():
            return json.loads(plain.read_bytes(), object_pairs_hook=needed)
        if packed.is_file():
            return json.loads(gzip.decompress(packed.read_bytes()), object_pairs_hook=needed)
        return None


def _undocumented(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object without documentation, which is text; a parameter of the same name is an object, and stays."""
    return {name: "" if name in _DOCUMENTATION and isinstance(value, str) else value for name, value in pairs}


def _endpoints(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object of the list of endpoints; each partition lists all its services, and keeps those that are called."""
    described = dict(pairs)
    if "partition" in described:
        described["services"] = {name: described["services"][name] for name in _CALLED if name in described["services"]}
    return described
