"""Which signals stop a run, which are passed on to the app, and which are left alone.

An image's STOPSIGNAL may name any signal, and the default action of most is to end the process that they reach: sidecar
would be gone, with the app left behind and no final backup. As PID 1 it would not even notice them (pid_namespaces(7)).
"""

import signal
from typing import Final

_HALT: Final = (3, 4, 5, 6, 13, 14, 15, 16)  # systemd(1): halt, power off, reboot and kexec, cleanly and at once


def _named(*names: str) -> tuple[int, ...]:
    """The numbers of those that this system has."""
    return tuple(int(getattr(signal, name)) for name in names if hasattr(signal, name))


def _real_time() -> range:
    first, last = getattr(signal, "SIGRTMIN", 0), getattr(signal, "SIGRTMAX", -1)
    return range(int(first), int(last) + 1)


# SIGPWR is what LXC halts a container with. SIGXCPU: the hard limit, which is a SIGKILL, follows soon.
STOPPING: Final = (
    *_named("SIGTERM", "SIGINT", "SIGQUIT", "SIGPWR", "SIGXCPU"),
    *(number for number in _real_time() if number - _real_time().start in _HALT),
)
PASSED_ON: Final = (
    *_named("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGWINCH", "SIGALRM", "SIGVTALRM", "SIGPROF", "SIGIO", "SIGSTKFLT"),
    *(number for number in _real_time() if number not in STOPPING),
)
LEFT_ALONE: Final = _named(
    *("SIGKILL", "SIGSTOP"),  # no program can handle them
    "SIGCHLD",  # reports the end of a child, to us
    *("SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGABRT", "SIGTRAP", "SIGSYS"),  # faults of our own process
    *("SIGPIPE", "SIGXFSZ"),  # Python ignores them: the write fails instead
    *("SIGTSTP", "SIGTTIN", "SIGTTOU", "SIGCONT"),  # job control
    "SIGURG",  # ignored by default
)


def passed_on() -> tuple[int, ...]:
    """`PASSED_ON`, without those that a library in this process uses itself, as a preloaded profiler does SIGPROF."""
    return tuple(number for number in PASSED_ON if signal.getsignal(number) is not None)


def format_signal(number: int) -> str:
    """The name of a signal, like SIGTERM or SIGRTMIN+3."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIGRTMIN+{number - signal.SIGRTMIN}"
