"""Random databases, compared for as long as one likes."""
