"""Runs before sidecar in the bundle: undoes what PyInstaller's bootloader did to the environment.

The bootloader puts the bundle's libraries on LD_LIBRARY_PATH and starts itself anew, so that the loader finds them. The
loader has read the variable by now. The app must not inherit it: it would get our OpenSSL in place of its own.
"""

import os

original = os.environ.pop("LD_LIBRARY_PATH_ORIG", None)
os.environ.pop("LD_LIBRARY_PATH", None)
if original is not None:
    os.environ["LD_LIBRARY_PATH"] = original
for name in [name for name in os.environ if name.startswith("_PYI_")]:
    del os.environ[name]
