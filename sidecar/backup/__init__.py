"""Keeps a database protected: cycle, loop, final backup, fenced state."""
