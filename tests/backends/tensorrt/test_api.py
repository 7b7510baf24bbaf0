"""The names of TensorRT's API, held against NVIDIA's own packages, which pip fetches."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import tdc_deploy
from tdc_deploy.backends.tensorrt.api import NAMES, version_of
from tests.nvidia_packages import fetched, python_310

ROOT = Path(tdc_deploy.__file__).parents[1]

# Libraries that the packages name as needed, and the functions that must be there when they are loaded;
# none is called.
STUBS = {
    "libnvinfer.so.{major}": (),
    "libnvinfer_plugin.so.{major}": (),
    "libnvonnxparser.so.{major}": (
        "createInferBuilder_INTERNAL",
        "createInferRefitter_INTERNAL",
        "createInferRuntime_INTERNAL",
        "createNvOnnxParserRefitter_INTERNAL",
        "createNvOnnxParser_INTERNAL",
        "getBuilderPluginRegistry",
        "getNvOnnxParserVersion",
        "getPluginRegistry",
        "initLibNvInferPlugins",
    ),
}
STUBS_OF_8: dict[str, tuple[str, ...]] = {
    "libcublas.so.11": (),
    "libcublasLt.so.11": (),
    "libcudnn.so.8": (),
}

CHECK = """
import importlib, os, sys
sys.setdlopenflags(os.RTLD_LAZY | os.RTLD_GLOBAL)
name, *sys.path[:0] = sys.argv[1:]
tensorrt = importlib.import_module(name)
from tdc_deploy.backends.tensorrt.api import NAMES, version_of
version = version_of(tensorrt)
for dotted, (first, gone) in NAMES.items():
    found = tensorrt
    for part in dotted.split("."):
        found = getattr(found, part, None)
    expected = first <= version and (gone is None or version < gone)
    if (found is not None) != expected:
        print(f"{dotted} is {'not ' if found is None else ''}in {tensorrt.__version__}")
print("checked", version)
"""


def make_stubs(names: dict[str, tuple[str, ...]], folder: Path) -> None:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler for libraries that stand in for CUDA's")
    folder.mkdir()
    for name, functions in names.items():
        source = folder / "stub.c"
        source.write_text("int tdc_stub;" + "".join(f"void {f}(void) {{}}" for f in functions))
        flags = ["-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", str(folder / name)]
        subprocess.run([compiler, *flags, str(source)], check=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("package", "module", "version"),
    [
        ("tensorrt", "tensorrt", "8.5.3.1"),
        ("tensorrt-cu13-bindings", "tensorrt_bindings", "10.16.1.11"),
        ("tensorrt-cu13-bindings", "tensorrt_bindings", "11.1.0.106"),
    ],
)
def test_every_name_is_where_the_list_says(
    package: str, module: str, version: str, tmp_path: Path
) -> None:
    # 8.5 has no wheel for a newer Python.
    python = python_310() if version.startswith("8.") else sys.executable
    site = fetched(package, version, python, tmp_path)
    major = version.split(".")[0]
    stubs = STUBS_OF_8 if major == "8" else {k.format(major=major): v for k, v in STUBS.items()}
    make_stubs(stubs, tmp_path / "stubs")
    libraries = f"{tmp_path / 'stubs'}{os.pathsep}{site / module}"
    done = subprocess.run(
        [python, "-c", CHECK, module, str(site), str(ROOT)],
        capture_output=True,
        text=True,
        env={**os.environ, "LD_LIBRARY_PATH": libraries},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    numbers = tuple(map(int, version.split(".")[:2]))
    assert done.stdout.splitlines() == [f"checked {numbers}"]


@pytest.mark.parametrize(
    ("text", "version"), [("8.5.3.1", (8, 5)), ("10.16.1.11", (10, 16)), ("11.0.0rc1", (11, 0))]
)
def test_versions(text: str, version: tuple[int, int]) -> None:
    assert version_of(SimpleNamespace(__version__=text)) == version


def test_every_name_has_a_span() -> None:
    assert all(gone is None or first < gone for first, gone in NAMES.values())
