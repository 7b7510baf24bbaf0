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
    return {name: installed_version(name) for name in LIBRARIES}


def installed_version(name: str) -> str:
    """The version of an installed distribution, or MISSING."""
    try:
        return version(name)
    except PackageNotFoundError:
        return MISSING
