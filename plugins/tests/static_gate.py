#!/usr/bin/env python3
"""What the compiler can be held to without a GPU.

    static_gate.py NVCC sm_90 INCLUDE_DIR source.cu [source.cu ...]

Compiles each source for one architecture, with warnings as errors, and checks every kernel in it:
no register spills and no local memory; no more registers than its threads may have at the
occupancy that it asks for. Where cuobjdump and nvdisasm are found (on PATH, beside nvcc, or in the
packages nvidia-cuda-cuobjdump and nvidia-cuda-nvdisasm of this Python), also its machine code:
tensor core instructions where the arithmetic has them, 16-byte asynchronous copies, 16-byte
matrix loads, no access to local memory. Prints a table; exits with 1 if a check fails, with 77 if
nvcc does not know the architecture.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

SKIPPED = 77
REGISTER_CEILING = 224  # the largest of all: 64 sums and the operands of a thread
TENSOR_CORES_FROM = 80


@dataclass
class Kernel:
    name: str
    registers: int = 0
    spilled: bool = False
    instructions: dict[str, int] = field(default_factory=dict)


def main(nvcc: str, architecture: str, include: str, *sources: str) -> int:
    if architecture not in run([nvcc, "--list-gpu-code"]).stdout.split():
        print(f"{nvcc} does not compile for {architecture}")
        return SKIPPED
    failures = []
    with tempfile.TemporaryDirectory() as folder:
        for source in sources:
            cubin = Path(folder) / f"{Path(source).stem}.cubin"
            kernels, error = compile_source(nvcc, architecture, include, source, cubin)
            if error:
                failures.append(f"{source}: {error}")
                continue
            disassembled = add_instructions(kernels, cubin, nvcc)
            for kernel in kernels.values():
                failures += [
                    f"{kernel.name}: {what}" for what in faults(kernel, architecture, disassembled)
                ]
                print(row(kernel))
    for failure in failures:
        print(f"FAILED {failure}")
    return 1 if failures else 0


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


def compile_source(
    nvcc: str, architecture: str, include: str, source: str, cubin: Path
) -> tuple[dict[str, Kernel], str]:
    """The kernels by their mangled name, and what nvcc said if it failed."""
    options = [
        "-std=c++17",
        "-Werror",
        "all-warnings",
        "-Xptxas",
        "-v,--warn-on-spills",
        "-I",
        include,
    ]
    options += ["-I", str(Path(include).parent), "-cubin", source, "-o", str(cubin)]
    result = run([nvcc, f"-arch={architecture}", *options])
    if result.returncode:
        return {}, result.stderr[-2000:]
    kernels: dict[str, Kernel] = {}
    name = ""
    for line in result.stderr.splitlines():
        if found := re.search(r"Compiling entry function '(\S+)'", line):
            name = found[1]
            kernels[name] = Kernel(readable(name))
        if found := re.search(r"Used (\d+) registers", line):
            kernels[name].registers = int(found[1])
        if found := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores", line):
            kernels[name].spilled = found[1] != "0" or found[2] != "0"
    return kernels, ""


def readable(mangled: str) -> str:
    demangler = shutil.which("c++filt")
    if not demangler:
        return mangled
    name = run([demangler, mangled]).stdout.strip()
    name = re.sub(r"\((int|bool)\)", "", name).replace("tdc::", "").removeprefix("void ")
    name = re.sub(r"TensorCores<\w+, Mma(\w+)>", r"\1", name)
    return name.split(">(")[0] + ">"


def add_instructions(kernels: dict[str, Kernel], cubin: Path, nvcc: str) -> bool:
    """Counts each kernel's instructions by their full name; False if there is no disassembler."""
    cuobjdump = find_tool("cuobjdump", nvcc)
    if not (cuobjdump and find_tool("nvdisasm", nvcc)):
        return False
    path = f"{Path(cuobjdump).parent}:/usr/bin:/bin"  # cuobjdump looks for nvdisasm on PATH
    listing = subprocess.run(
        [cuobjdump, "-sass", str(cubin)],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": path},
    ).stdout
    kernel = None
    for line in listing.splitlines():
        if found := re.search(r"Function : (\S+)", line):
            kernel = kernels.get(found[1])
        elif kernel and (
            found := re.search(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+ )?([A-Z][A-Z0-9_.]+)", line)
        ):
            kernel.instructions[found[1]] = kernel.instructions.get(found[1], 0) + 1
    return any(kernel.instructions for kernel in kernels.values())


def find_tool(name: str, nvcc: str) -> str | None:
    packaged = (tool for path in sys.path for tool in Path(path).glob(f"nvidia/cu*/bin/{name}"))
    beside = Path(nvcc).resolve().parent / name
    candidates = [shutil.which(name), *map(str, packaged), str(beside)]
    return next((c for c in candidates if c and Path(c).is_file()), None)


def faults(kernel: Kernel, architecture: str, disassembled: bool) -> list[str]:
    checks = {"spills registers, or has a stack frame": kernel.spilled}
    checks[f"takes {kernel.registers} registers; at most {REGISTER_CEILING}"] = (
        kernel.registers > REGISTER_CEILING
    )
    if disassembled:
        checks["touches local memory"] = count(kernel, "LDL") + count(kernel, "STL") > 0
        if "fused::" in kernel.name and capability(architecture) >= TENSOR_CORES_FROM:
            checks |= channel_last_checks(kernel)
    return [fault for fault, found in checks.items() if found]


def channel_last_checks(kernel: Kernel) -> dict[str, bool]:
    exact = re.search(r"\bF32\b", kernel.name) is not None
    wide_copies = [
        name for name in kernel.instructions if name.startswith("LDGSTS") and ".128" in name
    ]
    return {
        "has no tensor core instruction": not exact and not count(kernel, "HMMA"),
        "is not exact: it has tensor core instructions": exact and count(kernel, "HMMA") > 0,
        "has no 16-byte matrix load": not exact and not count(kernel, "LDSM.16.M88.4"),
        "has no 16-byte asynchronous copy": not wide_copies,
    }


def count(kernel: Kernel, prefix: str) -> int:
    return sum(n for name, n in kernel.instructions.items() if name.startswith(prefix))


def capability(architecture: str) -> int:
    return int(re.sub(r"\D", "", architecture))


def row(kernel: Kernel) -> str:
    return (
        f"{kernel.registers:4} registers {sum(kernel.instructions.values()):6} instructions "
        f"{count(kernel, 'HMMA'):4} HMMA {count(kernel, 'LDGSTS'):4} LDGSTS  {kernel.name}"
    )


if __name__ == "__main__":
    if len(sys.argv) < 5:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
