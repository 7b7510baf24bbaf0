"""The names of TensorRT's API, held against NVIDIA's own packages, which pip fetches."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

import tdc_deploy
from tdc_deploy.backends.tensorrt.api import NAMES, version_of

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


def python_of(version: str) -> str:
    """A Python that the package is for: 8.5 has no wheel for newer ones than 3.10."""
    if not version.startswith("8.") or platform.python_version().startswith("3.10."):
        return sys.executable
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    kept = [str(path) for path in sorted(versions.glob("3.10.*/bin/python3.10"))]
    found = kept[-1] if kept else shutil.which("python3.10")
    if found is None:
        pytest.skip(f"TensorRT {version} needs Python 3.10")
    return found


def fetched(package: str, version: str, python: str, folder: Path) -> Path:
    """The package, unpacked."""
    command = [python, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    done = subprocess.run(
        [*command, "--dest", str(folder), f"{package}=={version}"],
        capture_output=True,
        text=True,
        check=False,
    )
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        reason = (done.stderr.strip().splitlines() or ["no wheel"])[-1]
        pytest.skip(f"pip cannot fetch {package} {version}: {reason}")
    with zipfile.ZipFile(wheels[0]) as wheel:
        wheel.extractall(folder / "site")
    wheels[0].unlink()
    return folder / "site"


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
    python = python_of(version)
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
