"""This machine: files, mounts, locks, users, processes, memory, clock."""
