"""Which process recorded a run, and whether that process is surely dead.

    this_process()                     pid 4711, began at tick 81 of boot 3f2c…, in this pid namespace of this host
    standing(process, here)            "alive", "dead", or "unknown" where nobody here can say

A pid alone says little: it is given again, it means another process in another container and on another host. So the
time when the process began is compared too, and only where boot and pid namespace are ours. After a restart of this
very host its processes are dead. Of all others nothing is claimed.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

__all__ = ["Process", "Standing", "standing", "this_process"]

Standing: TypeAlias = Literal["alive", "dead", "unknown"]


@dataclass(frozen=True, slots=True)
class Process:
    """What tells a process from all others. A fact that the system does not tell is empty."""

    pid: int
    began: str
    boot: str
    namespace: str
    machine: str
    host: str


def this_process() -> Process:
    pid = os.getpid()
    return Process(
        pid=pid,
        began=birth_of(pid) or "",
        boot=_line("/proc/sys/kernel/random/boot_id"),
        namespace=_link("/proc/self/ns/pid"),
        machine=_line("/etc/machine-id"),
        host=socket.gethostname(),
    )


def standing(process: Process, here: Process, birth: Callable[[int], str | None] | None = None) -> Standing:
    """What is known of `process` by one who runs as `here`. `birth` says when a pid began, None where there is none."""
    if here.boot and process.boot == here.boot:
        if process.namespace != here.namespace or not process.began:
            return "unknown"
        return "alive" if (birth or birth_of)(process.pid) == process.began else "dead"
    same_host = process.host == here.host and process.machine == here.machine
    if here.boot and process.boot:
        return "dead" if same_host and here.machine else "unknown"  # the host was started anew
    if same_host and not here.boot and not process.boot and not _exists(process.pid):
        return "dead"  # no boot ids here, as on macOS: a pid that is free again is all that proves anything
    return "unknown"


def birth_of(pid: int) -> str | None:
    """When the process began, in ticks since the boot; "" where the system does not say, None where there is none."""
    if not Path("/proc/self/stat").exists():
        return ""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # the name before it may hold anything
    return None if len(fields) < 20 or fields[0] in "ZX" else fields[19]


def _exists(pid: int) -> bool:
    if sys.platform == "win32":
        return True  # there, asking would end it
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        pass
    return True


def _line(path: str) -> str:
    with suppress(OSError):
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    return ""


def _link(path: str) -> str:
    with suppress(OSError):
        return os.readlink(path)
    return ""
