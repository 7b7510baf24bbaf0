"""The processor: what it is called, what it can compute with, and how much of it there is."""

from __future__ import annotations

import os
import platform
from functools import lru_cache
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
# Instruction sets by which ONNX Runtime chooses its kernels, as Linux spells them, in reading order.
_KERNELS = (
    *("avx", "avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile"),
    *("asimd", "asimddp", "i8mm", "bf16", "sve"),
)


def device_name() -> str:
    """The processor's name with what tells apart those that virtual machines give one name ("AMD EPYC"):
    family and model, and the instruction sets that kernels are chosen by. What differs in these has other
    latencies.
    """
    return describe(_cpuinfo()) or platform.processor() or platform.machine()


def flags() -> set[str]:
    """The instruction sets, as Linux spells them; empty where it is not known."""
    return _flags(_fields(_cpuinfo()))


def available_cpus() -> int:
    """The CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


# Every key of the store asks for it, and a server's text is of thousands of lines.
@lru_cache(maxsize=1)
def describe(cpuinfo: str) -> str:
    """`device_name` from the text of /proc/cpuinfo; nothing if it tells nothing."""
    fields = _fields(cpuinfo)
    name = fields.get("model name") or fields.get("hardware") or ""
    known = []
    if "cpu family" in fields and "model" in fields:
        known = [f"family {fields['cpu family']}", f"model {fields['model']}"]
    known += _parts(cpuinfo)
    known += [kernel for kernel in _KERNELS if kernel in _flags(fields)]
    return f"{name or 'CPU'} ({', '.join(known)})" if known else name


def _parts(cpuinfo: str) -> list[str]:
    """The kinds of cores of an ARM processor, which may differ: implementer and part, as they come."""
    told = [line.partition(":") for line in cpuinfo.lower().splitlines()]
    values = {"cpu implementer": "", "cpu part": ""}
    parts: dict[str, None] = {}
    for key, _, value in told:
        if (key := key.strip()) in values:
            values[key] = value.strip()
            if key == "cpu part":
                parts[" part ".join(filter(None, values.values()))] = None
    return list(parts)


@lru_cache(maxsize=1)
def _cpuinfo() -> str:
    return _CPUINFO.read_text(errors="replace") if _CPUINFO.is_file() else ""


def _fields(cpuinfo: str) -> dict[str, str]:
    """By names in lower case: the first processor's, and what is said of all ("Hardware")."""
    fields: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            fields.setdefault(key.strip().lower(), value.strip())
    return fields


def _flags(fields: dict[str, str]) -> set[str]:
    return set(fields.get("flags", fields.get("features", "")).split())
