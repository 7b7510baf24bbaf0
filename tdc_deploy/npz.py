"""Arrays in a zip archive, as numpy.savez writes them, under any name: savez has a parameter `file`."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray


def npz_bytes(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """The .npz file of arrays by name, not compressed."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, value in arrays.items():
            put_array(archive, name, value)
    return content.getvalue()


def put_array(archive: zipfile.ZipFile, name: str, array: NDArray[Any]) -> None:
    """Add an array, of any size."""
    with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
        np.lib.format.write_array(file, array, allow_pickle=False)
