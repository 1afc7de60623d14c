"""One SQLite database on this disk: snapshots, checks, changes, lineage."""
