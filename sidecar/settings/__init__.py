"""Every setting: declared once (pydantic-settings), loaded, explained."""

from sidecar.settings.configuration import Configuration
from sidecar.settings.environment import app_environment
from sidecar.settings.fields import Settings, listen_address
from sidecar.settings.kinds import format_value, kind_of

__all__ = ["Configuration", "Settings", "app_environment", "format_value", "kind_of", "listen_address"]
