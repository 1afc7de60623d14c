"""`python -m sidecar.demo`: the guestbook."""

import sys

from sidecar.demo.app import main

sys.exit(main())
