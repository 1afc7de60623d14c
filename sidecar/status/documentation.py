"""Pages of the documentation that hints name. A test looks for each page and heading in docs/."""

from typing import Final

# OWNER is the account on GitHub that releases sidecar, as in `ghcr.io/OWNER/sidecar`.
BASE: Final = "https://OWNER.github.io/sidecar"

GO_BACK: Final = f"{BASE}/restore/#go-back-to-another-restore-point"
FINDINGS: Final = f"{BASE}/findings/#what-to-do"
EMPTY: Final = f"{BASE}/troubleshooting/#the-app-started-on-an-empty-database"
NO_COMMAND: Final = f"{BASE}/troubleshooting/#sidecar-runs-without-a-command"
DIVERGED: Final = f"{BASE}/restore/#what-another-machine-wrote"
WRITTEN_LATE: Final = f"{BASE}/troubleshooting/#something-wrote-after-the-final-backup"
OWNER_AND_MODE: Final = f"{BASE}/restore/#owner-and-mode"
OTHER_LOCKS: Final = f"{BASE}/troubleshooting/#the-app-does-not-use-posix-locks"
ANOTHER_NAME: Final = f"{BASE}/troubleshooting/#the-database-has-another-name"
LOCKED: Final = f"{BASE}/troubleshooting/#the-database-stays-locked"
STREAMING: Final = f"{BASE}/streaming/#when-nothing-is-streamed"
RULES: Final = f"{BASE}/retention/#lifecycle-rules"
CONDITIONS: Final = f"{BASE}/one-writer/#a-lease-in-another-store"
PRUNE: Final = f"{BASE}/prune/#prune"
