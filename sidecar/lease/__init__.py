"""One writer: who may publish, for how long, and how that is lost."""
