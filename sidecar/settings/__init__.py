"""Every setting: declared once (pydantic-settings), loaded, explained."""
