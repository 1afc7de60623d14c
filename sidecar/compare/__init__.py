"""What differs between two states of a database, at a cost that follows what changed."""
