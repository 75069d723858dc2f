"""On what a speed was measured: the processor, those of its abilities that matter to a model, memory, system.

machine()  →  {"processor": "AMD EPYC 9B14", "flags": ["avx2", "avx512f", "avx512_vnni"], "cores": 2, …}
"""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

__all__ = ["machine"]

# What runtimes choose their kernels by: of x86, then of ARM.
_FLAGS = frozenset(
    "sse4_2 avx f16c fma avx2 avx_vnni avx512f avx512bw avx512vl avx512_vnni avx512_bf16 avx512_fp16 amx_tile amx_int8 "
    "amx_bf16 neon asimd asimddp asimdhp i8mm bf16 sve sve2 sme".split()
)
_APPLE = ("hw.optional.neon", "hw.optional.arm.FEAT_DotProd", "hw.optional.arm.FEAT_I8MM", "hw.optional.arm.FEAT_BF16")


def machine() -> dict[str, object]:
    """Only what could be found out."""
    found: dict[str, object | None] = {
        "processor": _processor(),
        "architecture": platform.machine(),
        "flags": _flags(),
        "cores": _cores(),
        "memory_bytes": _memory(),
        "accelerators": _accelerators(),
        "system": platform.platform(),
        "python": platform.python_version(),
    }
    return {name: value for name, value in found.items() if value not in (None, [], "")}


def flags_of(cpuinfo: str) -> list[str]:
    """Out of the text of /proc/cpuinfo: "flags" of x86, "Features" of ARM."""
    for line in cpuinfo.splitlines():
        name, _, values = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return sorted(_FLAGS & set(values.split()))
    return []


def _processor() -> str:
    for line in _cpuinfo().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return _sysctl("machdep.cpu.brand_string") or platform.processor()


def _flags() -> list[str]:
    if _is_apple():
        intel = {flag.lower().replace("avx2.0", "avx2") for flag in _sysctl("machdep.cpu.leaf7_features").split()}
        return sorted([name.rpartition(".")[2].lower() for name in _APPLE if _sysctl(name) == "1"] + [*_FLAGS & intel])
    return flags_of(_cpuinfo())


def _cores() -> int | None:
    """Those that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return None


def _accelerators() -> list[str]:
    found = []
    for path in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("Model:"):
                found += [line.partition(":")[2].strip()]
    return found


def _cpuinfo() -> str:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _is_apple() -> bool:
    return platform.system() == "Darwin"


def _sysctl(name: str) -> str:
    """macOS alone has it."""
    if not _is_apple():
        return ""
    done = subprocess.run(["/usr/sbin/sysctl", "-n", name], capture_output=True, text=True, check=False)
    return done.stdout.strip()
