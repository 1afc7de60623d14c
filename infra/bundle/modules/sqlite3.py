"""Replaces Python's sqlite3 in the bundle, which aiosqlite imports by name, so that there is only the SQLite of pysqlite3."""

import sys

import pysqlite3

sys.modules[__name__] = pysqlite3
