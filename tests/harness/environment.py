"""The environment of child processes, and the variables that must never reach the code under test by accident."""

import os
import sys
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_PREFIXES = ("AWS_", "BOTO_", "SIDECAR_", "FLY_", "SSL_CERT_")
_SUFFIXES = ("_PROXY", "_CA_BUNDLE")
_NAMES = ("BOTO_CONFIG", "BUCKET_NAME", "RELEASE_COMMAND", "NOTIFY_SOCKET")


def leaks(name: str) -> bool:
    """True for a variable of the developer's machine that would change what the program does."""
    upper = name.upper()
    return upper.startswith(_PREFIXES) or upper.endswith(_SUFFIXES) or upper in _NAMES


def leaking_names() -> list[str]:
    """The names in this process's environment for which `leaks` is true."""
    return [name for name in os.environ if leaks(name)]


def clean_environment(tmp: Path, **extra: str | Path) -> dict[str, str]:
    """An environment built from nothing: HOME and TMPDIR are inside `tmp`; `extra` is added last."""
    home, temporary = tmp / "home", tmp / "tmp"
    for directory in (home, temporary):
        directory.mkdir(parents=True, exist_ok=True)
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{SYSTEM_PATH}",
        "HOME": str(home),
        "TMPDIR": str(temporary),
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
        **_source_path(),
    }
    return environment | {name: str(value) for name, value in extra.items()}


def _source_path() -> dict[str, str]:
    """PYTHONPATH, only if the package is not installed and runs from the source tree."""
    try:
        metadata.distribution("sqlite-sidecar")
    except metadata.PackageNotFoundError:
        return {"PYTHONPATH": str(ROOT)}
    return {}
