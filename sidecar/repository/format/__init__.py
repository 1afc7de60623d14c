"""The restore-point file as bytes: chunks, index and tail; pure."""
