"""Embedded kernels on the CPU: their source, compiled for the emulator, launched as TensorRT would."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

COMPILER = shutil.which("c++") or shutil.which("g++")
PLUGINS = Path(__file__).parents[3] / "plugins"
FLAGS = ["-std=c++17", "-O1", "-fPIC", "-DTDC_EMULATED", "-Wno-unknown-pragmas"]
FLAGS += ["-I", str(PLUGINS / "include"), "-I", str(PLUGINS)]

# Inputs, integers, output: in this order, and of these types.
LAUNCHER = """
extern "C" int launch(unsigned blocks, unsigned threads, size_t shared, void* const* in,
                      const int* numbers, void* out) {{
    return TDC_LAUNCH({entry}, dim3(blocks), dim3(threads), shared, nullptr, {inputs}, {integers}, out);
}}
"""

Array = np.ndarray[Any, Any]


def build_emulator(folder: Path) -> list[str]:
    """The emulator's object files."""
    assert COMPILER is not None
    names = ("async_copy", "block", "fiber", "runtime", "tensor_core")
    sources = [str(PLUGINS / "emulator" / f"{name}.cpp") for name in names]
    subprocess.run([COMPILER, *FLAGS, "-c", *sources], cwd=folder, check=True)
    return [str(folder / f"{name}.o") for name in names]


class EmulatedKernel:
    """A kernel's source with `inputs` pointers and `integers` integers."""

    def __init__(
        self, source: str, entry: str, inputs: int, integers: int, objects: list[str], folder: Path
    ) -> None:
        assert COMPILER is not None
        text = source + LAUNCHER.format(
            entry=entry,
            inputs=", ".join(f"in[{i}]" for i in range(inputs)),
            integers=", ".join(f"numbers[{i}]" for i in range(integers)),
        )
        (folder / "kernel.cpp").write_text(text)
        library = folder / "kernel.so"
        command = [COMPILER, *FLAGS, "-shared", str(folder / "kernel.cpp"), *objects]
        subprocess.run([*command, "-o", str(library)], check=True)
        self._library = library

    def __call__(
        self,
        launch: tuple[int, int, int],
        inputs: Sequence[Array],
        integers: Sequence[int],
        output: Array,
    ) -> Array:
        """What a launch of (blocks, threads, shared bytes) makes of `output`.

        In a process of its own: the emulator ends it where it finds a fault.
        """
        path = self._library.with_suffix(".npz")
        arrays = {f"in{i}": array for i, array in enumerate(inputs)}
        np.savez(path, launch=launch, integers=integers, output=output, **arrays)  # type: ignore[arg-type]
        command = [sys.executable, __file__, str(self._library), str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        with np.load(path) as found:
            return np.asarray(found["output"])


def aligned(array: Array) -> Array:
    """A copy whose first element lies on 16 bytes, as device memory does."""
    room = np.empty(array.nbytes + 16, np.uint8)
    start = -room.ctypes.data % 16
    copied: Array = room[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copied[...] = array
    return copied


def run_launch(library: str, path: str) -> None:
    """Launch what the file has, and write its output back."""
    with np.load(path) as found:
        stored = {name: aligned(found[name]) for name in found.files}
    inputs = [stored[f"in{i}"] for i in range(len(stored) - 3)]
    blocks, threads, shared = map(int, stored["launch"])
    pointers = (ctypes.c_void_p * len(inputs))(*(array.ctypes.data for array in inputs))
    numbers = (ctypes.c_int * stored["integers"].size)(*map(int, stored["integers"]))
    failed = ctypes.CDLL(library).launch(
        ctypes.c_uint(blocks),
        ctypes.c_uint(threads),
        ctypes.c_size_t(shared),
        pointers,
        numbers,
        ctypes.c_void_p(stored["output"].ctypes.data),
    )
    if failed:
        raise SystemExit(f"error {failed}")
    np.savez(path, output=stored["output"])


if __name__ == "__main__":
    run_launch(*sys.argv[1:])
