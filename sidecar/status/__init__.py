"""The read-model of the daemon and its judgement; pure."""
