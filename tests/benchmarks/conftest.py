from __future__ import annotations

from tests.plugin.conftest import emulated

__all__ = ["emulated"]  # fixture
