"""`sidecar check`: every setting with its source, and a trial of everything that the daemon will need."""
