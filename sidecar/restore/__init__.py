"""Brings a database back and proves that it can: boot table, put in place, drills."""
