"""An S3 server that grants roles for fly.io's tokens, and the environment for a child with such a role."""

import contextlib
from pathlib import Path
from typing import Self

from tests.harness.fly_machine import Issuer
from tests.harness.roles import BUCKET, iam, role_arn
from tests.harness.s3client import REGION
from tests.harness.seaweed import Seaweed

SHORT = 5  # seconds; the service rounds times to whole seconds


class TokenService:
    """A server with the bucket `roles.BUCKET`, and the issuer that it trusts. A context manager.

    `longest_session`, such as "5s", ends sessions sooner than a client requests.
    """

    def __init__(self, directory: Path, *, longest_session: str = "12h") -> None:
        self.issuer = Issuer()
        self.server = Seaweed(directory, iam(self.issuer, longest_session=longest_session))
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self._stack.enter_context(self.issuer)
        self._stack.enter_context(self.server)
        self.server.s3.make_bucket(BUCKET)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def environment(self, **more: str | Path) -> dict[str, str]:
        """The AWS_* variables for the writer role of the app, and `more`."""
        return {
            "AWS_ROLE_ARN": role_arn(),
            "AWS_ENDPOINT_URL_STS": self.server.endpoint,
            "AWS_ENDPOINT_URL_S3": self.server.endpoint,
            "AWS_REGION": REGION,
            **{name: str(value) for name, value in more.items()},
        }
