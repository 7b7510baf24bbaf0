from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import tdc_deploy

PACKAGE = Path(tdc_deploy.__file__).parent
MODULES = sorted(
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
    for path in PACKAGE.rglob("*.py")
)

# Each module is imported as if it were the first of the package, so that cycles show too. The finder
# makes the blocked packages look as if they were not installed.
IMPORT_EACH = """
import importlib, importlib.util, sys

BLOCKED = {"torch", "tensorrt", "pycuda", "cuda", "tdc_train", "matplotlib", "PIL"}
if sys.argv[1].startswith("tdc_deploy"):
    BLOCKED.add("tdc_calibration")  # a stage above: command lines import it when they run

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocked())
asked = importlib.util.find_spec  # who only asks is told that it is not there
importlib.util.find_spec = lambda name, *of: None if name.split(".")[0] in BLOCKED else asked(name, *of)
for module in sys.argv[1:]:
    for loaded in [name for name in sys.modules if name.split(".")[0] == "tdc_deploy"]:
        del sys.modules[loaded]
    try:
        importlib.import_module(module)
    except BaseException as error:
        sys.exit(f"{module}: {error!r}")
"""

LOADED_AFTER = """
import sys
{code}
print(*sorted({{name.split(".")[0] for name in sys.modules}}))
"""

# The real work, but for the waiting.
BUILD_IN_FAKE_TIME = """
from pathlib import Path
import numpy as np, pytest
from tests.builders import images, save_model, save_npz, small_cnn
from tests.fakes import FakeTime
import tdc_deploy
from tdc_deploy import api
FakeTime(pytest.MonkeyPatch())
folder = Path({folder!r})
model = save_model(small_cnn(), folder / "small.onnx")
inputs = save_npz(folder / "in.npz", image=images(16))
options = dict(inputs=inputs, max_error=0.5, latency_budget=0.5, threads=1)
artifact = api.build(model, folder / "fast.onnx", **options)
assert artifact.decision == "compressed", artifact
with tdc_deploy.load(artifact.path) as session:
    session(images(1))
"""


def python(code: str, *arguments: str, path: Path | None = None) -> str:
    """Run code in a fresh interpreter; return what it printed."""
    folders = [str(PACKAGE.parent)] if path is None else [str(path), str(PACKAGE.parent)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(folders)}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=600,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def loaded_after(code: str, path: Path | None = None) -> set[str]:
    """The top-level modules that a fresh interpreter holds after this code."""
    return set(python(LOADED_AFTER.format(code=code), path=path).split())


@pytest.fixture
def fake_torch(tmp_path: Path) -> Path:
    """A folder with a package `torch`, for those that import it wherever it is installed."""
    folder = tmp_path / "site"
    (folder / "torch").mkdir(parents=True)
    (folder / "torch" / "__init__.py").write_text("__version__ = '2.5'\n")
    return folder


def test_the_list_of_modules_is_complete() -> None:
    assert {"tdc_deploy", "tdc_deploy.api", "tdc_deploy.graph.fuse"} <= set(MODULES)


def test_every_module_imports_without_torch_tensorrt_and_pycuda() -> None:
    python(IMPORT_EACH, *MODULES)


def test_calibration_imports_without_torch_and_pillow() -> None:
    import tdc_calibration

    package = Path(tdc_calibration.__file__).parent
    found = [
        path.relative_to(package.parent).with_suffix("").parts for path in package.rglob("*.py")
    ]
    names = sorted(".".join(parts).removesuffix(".__init__") for parts in found)
    assert {"tdc_calibration", "tdc_calibration.readers.images"} <= set(names)
    python(IMPORT_EACH, *names, path=package.parent)


def test_a_module_that_needs_torch_would_be_found(tmp_path: Path) -> None:
    (tmp_path / "needy.py").write_text("import torch\n")
    with pytest.raises(AssertionError, match="needy: ModuleNotFoundError"):
        python(IMPORT_EACH, "needy", path=tmp_path)


def test_the_package_alone_imports_nothing_large() -> None:
    loaded = loaded_after("import tdc_deploy")
    assert "tdc_deploy" in loaded
    assert not loaded & {"onnx", "onnxruntime", "onnx_graphsurgeon", "polygraphy", "scipy", "torch"}


@pytest.mark.parametrize(
    "before", ["", "import tdc_deploy.api", "tdc_deploy.load, tdc_deploy.plan"]
)
def test_every_public_name_can_be_called_whatever_came_before(before: str) -> None:
    code = f"""
import tdc_deploy
{before}
for name in tdc_deploy.__all__:
    assert callable(getattr(tdc_deploy, name)), (name, getattr(tdc_deploy, name))
from tdc_deploy import build, load, plan
assert callable(build) and callable(load) and callable(plan)
assert set(tdc_deploy.__all__) <= set(dir(tdc_deploy))
"""
    python(code)


def test_other_names_are_missing() -> None:
    with pytest.raises(AttributeError, match="no attribute 'compile'"):
        tdc_deploy.compile  # noqa: B018


def test_loading_an_artifact_needs_no_graph_surgery() -> None:
    digits = PACKAGE.parent / "train" / "demo" / "digits.onnx"
    loaded = loaded_after(f"import tdc_deploy; tdc_deploy.load({str(digits)!r}).close()")
    assert "onnxruntime" in loaded
    assert not loaded & {"onnx_graphsurgeon", "onnxscript", "scipy.optimize", "torch"}


def test_the_public_names_load_no_runtime() -> None:
    loaded = loaded_after("import tdc_deploy; tdc_deploy.load; tdc_deploy.Session")
    assert not loaded & {"onnx", "onnxruntime", "tensorrt", "pycuda", "cuda", "torch"}


def test_importing_the_api_imports_no_torch(fake_torch: Path) -> None:
    assert "torch" in loaded_after("import torch", fake_torch)
    assert "torch" not in loaded_after("import tdc_deploy.api", fake_torch)


def test_building_and_loading_import_no_torch(fake_torch: Path, tmp_path: Path) -> None:
    code = BUILD_IN_FAKE_TIME.format(folder=str(tmp_path))
    assert "torch" not in loaded_after(code, fake_torch)
