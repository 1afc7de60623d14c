"""The page of `sidecar browse`: what happened to a database and when, in a browser on this machine."""
