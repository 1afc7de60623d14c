"""Takes the place of Python's sqlite3 in the bundle, where aiosqlite imports it by name: there is one SQLite, pysqlite3's."""

import sys

import pysqlite3

sys.modules[__name__] = pysqlite3
