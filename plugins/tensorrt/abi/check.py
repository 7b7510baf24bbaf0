"""Compare abi/ with NVIDIA's headers: `check.py INCLUDE...`, folders with NvInferRuntime.h.

Each folder's headers and abi/ for the same major compile probe.cpp, which prints sizes, offsets,
enumerators, slots of virtual functions and interface versions; and g++ tells the length of every
table of virtual functions that the plugin implements. All must be equal. Needs g++ and CUDA's
headers (in $CUDA_HOME, by default /usr/local/cuda). Exits 1 where something differs.
"""

from __future__ import annotations

import difflib
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ABI = Path(__file__).resolve().parent
PLUGINS = ABI.parent.parent
IMPLEMENTED_V2 = ("IPluginV2DynamicExt", "IPluginCreator")
IMPLEMENTED_V3 = (
    "IPluginV3",
    "IPluginV3OneCore",
    "IPluginV3OneBuild",
    "IPluginV3OneRuntime",
    "IPluginCreatorV3One",
)


def major_of(include: Path) -> int:
    """Return the major version that the headers say they have."""
    text = (include / "NvInferVersion.h").read_text()
    found = re.search(r"define (?:NV_TENSORRT_MAJOR|TRT_MAJOR_ENTERPRISE) +(\d+)", text)
    if not found:
        raise SystemExit(f"{include}/NvInferVersion.h: no major version")
    return int(found[1])


def facts(include: Path, major: int) -> list[str]:
    """Return what probe.cpp prints with these headers, and the tables' lengths."""
    cuda = Path(os.environ.get("CUDA_HOME", "/usr/local/cuda"))
    with tempfile.TemporaryDirectory() as folder:
        command = ["g++", "-std=c++17", "-w", "-fdump-lang-class", f"-DTDC_TENSORRT_MAJOR={major}"]
        paths = [f"-I{include}", f"-I{PLUGINS / 'include'}", f"-I{cuda / 'include'}"]
        subprocess.run(
            [*command, *paths, str(ABI / "probe.cpp"), "-o", "probe"], check=True, cwd=folder
        )
        printed = subprocess.run(
            [f"{folder}/probe"], check=True, capture_output=True, text=True
        ).stdout
        dump = next(Path(folder).glob("*.class")).read_text()
    lines = printed.splitlines()
    for name in IMPLEMENTED_V2 if major == 8 else IMPLEMENTED_V3:
        table = re.search(
            rf"^Vtable for nvinfer1::(?:v_1_0::)?{name}\n.*?(\d+) entries", dump, re.M
        )
        lines.append(f"entries {name} {table[1] if table else 'no table'}")
    return lines


def main(includes: list[str]) -> int:
    """Compare every folder; return the exit status."""
    if not includes:
        print(__doc__)
        return 2
    status = 0
    for include in map(Path, includes):
        major = major_of(include)
        theirs, ours = facts(include, major), facts(ABI, major)
        differences = list(
            difflib.unified_diff(theirs, ours, str(include), "abi", lineterm="", n=0)
        )
        print(f"{include}: TensorRT {major}, {len(ours)} facts, ", end="")
        print("all equal" if not differences else "\n".join(["these differ:", *differences]))
        status |= bool(differences)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
