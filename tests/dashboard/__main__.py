"""Write the file."""

from tests.dashboard import DASHBOARD, text

DASHBOARD.write_text(text())
