"""`sidecar run`: the app beside us, signals, and scopes nested in shutdown order."""
