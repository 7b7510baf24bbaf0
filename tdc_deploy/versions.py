"""Which libraries are installed."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

LIBRARIES = (
    "tdc-deploy",
    "numpy",
    "onnx",
    "onnx-graphsurgeon",
    "onnxruntime",
    "onnxscript",
    "polygraphy",
    "scipy",
    "tensorly",
)

MISSING = "not installed"


def library_versions() -> dict[str, str]:
    """Installed versions of the libraries that shape a result."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = MISSING
    return found
