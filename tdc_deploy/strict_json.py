"""JSON that every reader takes."""

from __future__ import annotations

import json
import math
from typing import Any


def dumps(data: Any) -> str:
    """Indented JSON; NaN and infinity, which JSON does not have, become null."""
    return json.dumps(_finite(data), indent=1, allow_nan=False)


def _finite(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_finite(value) for value in data]
    if isinstance(data, float) and not math.isfinite(data):
        return None
    return data
