"""What layers lose in other forms on real inputs, computed once for a model and its statistics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tdc_deploy.profiling.store import Store
from tdc_deploy.source import Source
from tdc_deploy.types import Candidate

REVISION = 1
"""Raised whenever the same kernel and second moment give other errors: the store's are then left alone."""


class KeptErrors:
    """`Decompositions.errors` and `error` of a source's layers; what is data-aware is kept in the store.

    By weight they are computed each time: that takes less than a tenth as long.
    """

    def __init__(self, source: Source, store: Store) -> None:
        self._source = source
        self._store = store

    def errors(self, name: str, candidates: Sequence[Candidate]) -> list[float]:
        """What each candidate of a layer loses at most."""
        made = self._source.decompositions
        if not made.is_data_aware(name):
            return made.errors(name, candidates)
        asked = {"candidates": [str(candidate) for candidate in candidates]}
        description = self._describe(name, asked)
        found = self._store.kept("errors", description, lambda: made.errors(name, candidates))
        return [float(error) for error in found]

    def error(self, name: str, candidate: Candidate, refined: bool) -> float:
        """What the (`refined`) factors of a candidate lose."""
        made = self._source.decompositions
        if candidate.ranks is None or not made.is_data_aware(name):
            return made.error(name, candidate, refined)
        description = self._describe(name, {"candidate": str(candidate), "refined": refined})
        found = self._store.kept(
            "factors' error", description, lambda: made.error(name, candidate, refined)
        )
        return float(found)

    def _describe(self, name: str, asked: dict[str, Any]) -> dict[str, Any]:
        statistics = self._source.statistics
        assert statistics is not None
        return {
            "revision": REVISION,
            "model": self._source.sha256,
            "statistics": statistics.sha256,
            "layer": name,
            **asked,
        }
