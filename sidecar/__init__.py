"""SQLite in production on machines whose disk does not survive."""

__version__ = "0.1.0"
