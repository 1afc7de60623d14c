"""`sidecar diff`: what differs between two states of a database, as text, JSON or SQL."""
