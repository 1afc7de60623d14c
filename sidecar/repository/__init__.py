"""Restore points in a store: keys, catalog, writer, reader, reuse, retention."""
