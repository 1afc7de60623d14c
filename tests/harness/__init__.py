"""The outside world of the tests: a real S3 server, a faulty network, real processes and real writers."""
