"""A machine like the smallest that SQLite apps are put on: 512 MB of memory, 1 core, a disk of 8 MiB/s and 2,000 IOPS.

Memory and processor are limited by control groups: those of version 2, or of version 1, whichever this kernel offers, below
the group that this process is in. What runs inside sees its own group in /sys/fs/cgroup, as in a container. The disk is an
ext4 file system in a file, behind a loop device that is limited in both directions, as fly.io's root disk is (volumes
overview: "2000 IOPs and 8MiB/s"). Version 1 does not know who dirtied a page, so there the device is limited for everybody.

Nothing of this is needed: `lacking` says what could not be limited, and why; the results are printed with it. It takes root.
"""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self

MEMORY = 512 << 20
RATE = 8 << 20  # bytes a second
IOPS = 2000
UNWRITTEN = MEMORY // 5  # bytes: vm.dirty_ratio of so little memory; who has written more waits for the disk

_ROOT = Path("/sys/fs/cgroup")
_PERIOD = 100_000  # microseconds: a whole core is as much in each period
_SECTOR = 512  # of /sys/block/DEVICE/stat, whatever the device's own (kernel: Documentation/block/stat.rst)
_ENTER = 'for file in $1; do echo $$ >"$file" || exit 125; done; if [ -n "$2" ]; then mount --bind "$2" "$3" || exit 125; fi; shift 3; exec "$@"'


class SmallMachine:
    """A context manager; databases lie below `disk`, and commands are started as `inside` says."""

    def __init__(self, directory: Path, room: int) -> None:
        """`room`: bytes that the disk must hold."""
        self.disk = directory / "disk"
        self.lacking: list[str] = []
        self._image, self._room = directory / "disk.img", room
        self._device = ""
        self._is_limited = False
        self._groups: dict[str, Path] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self.disk.mkdir(parents=True)
        with ExitStack() as stack:
            for what, make in (("memory", self._memory), ("processor", self._processor), ("disk", self._mount)):
                try:
                    make(stack)
                except (OSError, subprocess.CalledProcessError) as error:
                    self.lacking.append(f"{what}: {_reason(error)}")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def inside(self, command: Sequence[str]) -> Sequence[str]:
        """The same command in the groups; the process keeps its id."""
        entries = " ".join(str(group / "cgroup.procs") for group in dict.fromkeys(self._groups.values()))
        seen = self._groups.get("memory")
        where = "" if seen is None else str(_ROOT if _is_unified() else _ROOT / "memory")
        unshared = ("unshare", "--mount", "--propagation", "private") if seen else ()
        return (*unshared, "sh", "-c", _ENTER, "sh", entries, str(seen or ""), where, *command)

    @contextlib.contextmanager
    def limited(self) -> Iterator[None]:
        """The disk is as slow as it should be within the block, and as fast as it can be outside: for what is not measured."""
        if not self._is_limited:
            yield
            return
        self._limit(RATE, IOPS)
        try:
            yield
        finally:
            self._limit(0, 0)

    @contextlib.contextmanager
    def counted(self, into: dict[str, float]) -> Iterator[None]:
        """Add how many bytes the disk wrote and read (`device`, `device_read`) for the block; nothing without such a disk."""
        before = self._transferred()
        yield
        if self._device:
            into["device_read"], into["device"] = (
                float(now - then) for now, then in zip(self._transferred(), before, strict=True)
            )

    def _transferred(self) -> tuple[int, int]:
        if not self._device:
            return 0, 0
        os.sync()
        fields = self._sys("stat").split()
        return int(fields[2]) * _SECTOR, int(fields[6]) * _SECTOR

    @staticmethod
    def forget(file: Path) -> None:
        """Write a file to disk and drop it from memory: whoever reads it next pays for it."""
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)

    def _memory(self, stack: ExitStack) -> None:
        group = self._group("memory", stack)
        if _is_unified():
            _write(group / "memory.max", MEMORY)
            _write(group / "memory.swap.max", 0)
        else:
            _write(group / "memory.limit_in_bytes", MEMORY)
        self._groups["memory"] = group

    def _processor(self, stack: ExitStack) -> None:
        group = self._group("cpu", stack)
        if _is_unified():
            _write(group / "cpu.max", f"{_PERIOD} {_PERIOD}")
        else:
            _write(group / "cpu.cfs_period_us", _PERIOD)
            _write(group / "cpu.cfs_quota_us", _PERIOD)
        self._groups["cpu"] = group

    def _mount(self, stack: ExitStack) -> None:
        with self._image.open("wb") as file:
            file.truncate(self._room)
        stack.callback(self._image.unlink)
        _run("mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", str(self._image))
        device = _run("losetup", "--find", "--show", "--direct-io=on", str(self._image))
        stack.callback(_run, "losetup", "--detach", device)
        _run("mount", device, str(self.disk))
        stack.callback(_run, "umount", str(self.disk))
        self._device = device.removeprefix("/dev/")
        _write(self._bdi("strict_limit"), 1)
        _write(self._bdi("max_bytes"), UNWRITTEN)
        if _is_unified():
            self._groups["io"] = self._group("io", stack)
        self._limit(RATE, IOPS)  # what cannot be done is told before anything is measured
        self._limit(0, 0)
        self._is_limited = True

    def _limit(self, rate: int, iops: int) -> None:
        """0 is no limit."""
        number = self._sys("dev")
        if _is_unified():
            values = (f"{name}={value or 'max'}" for name, value in zip(("rbps", "wbps"), (rate, rate), strict=True))
            counts = (f"{name}={iops or 'max'}" for name in ("riops", "wiops"))
            _write(self._groups["io"] / "io.max", f"{number} {' '.join((*values, *counts))}")
            return
        for direction in ("read", "write"):
            _write(_ROOT / f"blkio/blkio.throttle.{direction}_bps_device", f"{number} {rate}")
            _write(_ROOT / f"blkio/blkio.throttle.{direction}_iops_device", f"{number} {iops}")

    def _sys(self, name: str) -> str:
        return Path(f"/sys/block/{self._device}/{name}").read_text().strip()

    def _bdi(self, name: str) -> Path:
        return Path(f"/sys/class/bdi/{self._sys('dev')}/{name}")

    def _group(self, controller: str, stack: ExitStack) -> Path:
        """The group of this benchmark, below the one that this process is in; removed at the end, when it is empty."""
        if _is_unified():
            parent = _ROOT / _own("").lstrip("/")
            _write(parent / "cgroup.subtree_control", f"+{controller}")
        else:
            parent = _ROOT / controller / _own(controller).lstrip("/")
        group = parent / f"small-machine-{os.getpid()}"
        if not group.exists():
            group.mkdir()
            stack.callback(group.rmdir)
        return group


def _is_unified() -> bool:
    """Whether control groups of version 2 are all there is."""
    return (_ROOT / "cgroup.controllers").exists()


def _own(controller: str) -> str:
    """The path of this process's group, as /proc/self/cgroup tells it."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return path
    raise FileNotFoundError(f"no control group for {controller}")


def _write(file: Path, value: object) -> None:
    file.write_text(f"{value}\n")


def _run(*command: str) -> str:
    program = shutil.which(command[0])
    if program is None:
        raise FileNotFoundError(f"{command[0]} is not there")
    return subprocess.run((program, *command[1:]), check=True, capture_output=True, text=True).stdout.strip()


def _reason(error: OSError | subprocess.CalledProcessError) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        return f"{error.cmd[0]}: {str(error.stderr).strip()}"
    return str(error)
