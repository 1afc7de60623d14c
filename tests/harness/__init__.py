"""What tests need from the outside world: a real S3 server, a faulty network, real processes and real writers."""
