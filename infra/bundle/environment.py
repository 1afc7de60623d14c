"""Runs before sidecar in the bundle and restores the environment that PyInstaller's bootloader has changed.

The bootloader adds the bundle's libraries to LD_LIBRARY_PATH and executes itself again, so that the loader finds them. The
loader has read the variable by now. The app must not inherit it: it would load our OpenSSL instead of its own.
"""

import os

original = os.environ.pop("LD_LIBRARY_PATH_ORIG", None)
os.environ.pop("LD_LIBRARY_PATH", None)
if original is not None:
    os.environ["LD_LIBRARY_PATH"] = original
for name in [name for name in os.environ if name.startswith("_PYI_")]:
    del os.environ[name]
