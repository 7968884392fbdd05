"""The Linux calls that Python has no function for, in one place. Each raises OSError with the call's name."""

from __future__ import annotations

import ctypes
import os

CLONE_NEWNS = 0x00020000  # mounts
CLONE_NEWUTS = 0x04000000  # hostname
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000
MS_NOSUID, MS_NODEV, MS_NOEXEC = 2, 4, 8

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36

_libc = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *arguments: object) -> None:
    if getattr(_libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def unshare(flags: int) -> None:
    """unshare(2): leave the namespaces of these kinds for new ones; CLONE_NEWPID takes effect for the next child."""
    _call("unshare", flags)


def setns(descriptor: int, kind: int) -> None:
    """setns(2): enter the namespace behind a descriptor."""
    _call("setns", descriptor, kind)


def mount(source: str, target: str, kind: str | None, flags: int = 0, options: str | None = None) -> None:
    """mount(2)."""
    words = [None if text is None else os.fsencode(text) for text in (source, target, kind)]
    _call("mount", *words, ctypes.c_ulong(flags), None if options is None else options.encode())


def die_with_parent() -> None:
    """prctl(2): be killed when the thread that forked us ends. Cleared by a change of credentials, so call it after that."""
    _call("prctl", _PR_SET_PDEATHSIG, 9, 0, 0, 0)


def adopt_orphans() -> None:
    """prctl(2): descendants whose parent ends become our children, so that we can end and reap them."""
    _call("prctl", _PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
