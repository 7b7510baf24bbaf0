"""What an engine's sidecar says of where the engine runs; read before TensorRT sees the engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tdc_deploy.errors import TdcError
from tdc_deploy.sidecar import read_sidecar

_REBUILD = "build the engine on this machine: tdc-deploy build model.onnx -o model.engine"


@dataclass(frozen=True)
class EngineInfo:
    """Where an engine runs.

    `compute_capability` is 10 * major + minor, None where the sidecar does not say. A
    hardware-compatible engine runs on other and later GPUs too: TensorRT itself decides on which.
    """

    tensorrt: str
    compute_capability: int | None
    needs_plugin: bool
    version_compatible: bool
    hardware_compatible: bool

    def check_tensorrt(self, installed: str) -> None:
        """Raise TdcError if this version of TensorRT cannot load the engine."""
        built, here = _numbers(self.tensorrt), _numbers(installed)
        fits = built[0] == here[0] and built <= here if self.version_compatible else built == here
        if not fits:
            raise TdcError(
                f"the engine was built by TensorRT {self.tensorrt}, installed is {installed}",
                expected="the same version"
                + (" or a later one of the same major" if self.version_compatible else ""),
                fix=_REBUILD,
            )

    def check_device(self, compute_capability: int) -> None:
        """Raise TdcError if the engine was built for a GPU of another compute capability."""
        built = self.compute_capability
        if built is None or self.hardware_compatible or built == compute_capability:
            return
        raise TdcError(
            f"the engine was built for compute capability {built / 10}, "
            f"this GPU has {compute_capability / 10}",
            expected="a GPU of the same",
            fix=_REBUILD,
        )


def read_engine_info(engine: Path, content: bytes) -> EngineInfo | None:
    """What the sidecar of an engine of this content says, or None if there is none.

    Raises:
        TdcError: it is no engine's sidecar, or belongs to another file of that name.
    """
    sidecar = read_sidecar(engine, content)
    return None if sidecar is None else engine_info(sidecar)


def engine_info(sidecar: Mapping[str, Any]) -> EngineInfo:
    """From the fields that tdc_deploy.engine_sidecar writes.

    Raises:
        TdcError: it is no engine's sidecar.
    """
    try:
        backend, engine = sidecar["backend"], sidecar["engine"]
        capability = backend.get("compute_capability")
        return EngineInfo(
            str(backend["version"]),
            None if capability is None else _capability(capability),
            sidecar.get("plugin") is not None,
            bool(engine["version_compatible"]),
            # The other level, same_compute_capability, allows no other capability.
            engine["hardware_compatibility_level"] == "ampere_plus",
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise TdcError(
            f"the sidecar is no engine's: {error!r}", fix="build the engine again"
        ) from None


def _capability(value: str) -> int:
    """10 * major + minor of "9.0"."""
    major, minor = value.split(".")
    return 10 * int(major) + int(minor)


def _numbers(version: str) -> tuple[int, ...]:
    """Major, minor and patch, which an engine must match."""
    return tuple(int("".join(filter(str.isdigit, part)) or 0) for part in version.split(".")[:3])
