"""Commands that a person types: parse, call, print, exit code; one file a command."""
