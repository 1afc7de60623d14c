"""The bill of 90 days of a busy app, by the retention policy and by Litestream's rules: `python -m tests.bill`."""
