"""The canonical name of a store's server: two servers may have buckets of the same name, and one server several names."""

import re

OWN = "AWS"  # the endpoint of a store whose provider is the default

# https://docs.aws.amazon.com/general/latest/gr/s3.html, and the endpoints of AWS PrivateLink. A bucket's name is its own
# in all regions of a partition, whichever of them is asked.
_REGION = r"[a-z]{2}(?:-[a-z]+)+-\d"
_AWS = re.compile(
    rf"https?://(?:s3(?:-accelerate)?(?:-fips)?(?:\.dualstack)?(?:[.-](?:{_REGION}|external-1))?"
    rf"|bucket\.vpce-[0-9a-z-]+\.s3\.{_REGION}\.vpce)\.amazonaws\.com(?:\.cn)?"
)


def canonical(endpoint: str) -> str:
    """`OWN` for an endpoint of AWS that is spelled out, and any other as it is.

    An endpoint has its host in lower case, and neither the default port, a slash at its end, nor a password.
    """
    return OWN if _AWS.fullmatch(endpoint) else endpoint
