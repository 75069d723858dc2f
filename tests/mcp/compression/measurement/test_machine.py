"""What is said of a machine is what matters to a model's speed, and only what is known."""

from __future__ import annotations

import json

from agentflow.mcp.compression.measurement.machine import flags_of, machine

INTEL = """processor\t: 0
model name\t: Some CPU
flags\t\t: fpu sse4_2 avx avx2 avx512f avx512_vnni amx_int8 hypervisor ibpb

processor\t: 1
flags\t\t: fpu sse4_2
"""
ARM = "processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd evtstrm aes asimddp sve i8mm bf16\n"


def test_flags_are_those_that_runtimes_choose_kernels_by() -> None:
    assert flags_of(INTEL) == ["amx_int8", "avx", "avx2", "avx512_vnni", "avx512f", "sse4_2"]
    assert flags_of(ARM) == ["asimd", "asimddp", "bf16", "i8mm", "sve"]
    assert flags_of("") == []


def test_this_machine_is_described_in_words_that_a_manifest_can_hold() -> None:
    found = machine()
    assert {"cores", "memory_bytes", "system", "python", "architecture"} <= set(found)
    assert json.loads(json.dumps(found)) == found
    assert all(value not in (None, "", []) for value in found.values())
