"""Writes the dashboard's file."""

from tests.dashboard import DASHBOARD, text

DASHBOARD.write_text(text())
