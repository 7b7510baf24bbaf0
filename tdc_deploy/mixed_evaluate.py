"""Measure networks some of whose layers are in INT8."""

from __future__ import annotations

import gc
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

import onnx

from tdc_deploy.backends.base import Backend
from tdc_deploy.compress import Selection, decompose_layers, fuse_chains
from tdc_deploy.evaluate import Evaluator
from tdc_deploy.graph.network import model_of
from tdc_deploy.profiling.store import Store
from tdc_deploy.progress import Progress
from tdc_deploy.quantising import Quantiser
from tdc_deploy.ranks.sensitivity import RUINED_ERROR
from tdc_deploy.ranks.table import CostTable, Row
from tdc_deploy.samples import Samples
from tdc_deploy.source import Source


def layers_in_int8(selection: Selection) -> list[str]:
    """The layers of a selection that are in INT8, by name."""
    return sorted(name for name, c in selection.items() if c.precision == "int8")


class MixedEvaluator(Evaluator):
    """As `Evaluator`, with the layers in Q/DQ form that a selection has in INT8, but for nodes that are
    `exact`.

    Errors are those of the Q/DQ form: rounding is a part of them.
    """

    def __init__(
        self,
        source: Source,
        samples: Samples,
        backend: Backend,
        store: Store,
        accuracy: Backend,
        quantiser: Quantiser,
        exact: Collection[str],
    ) -> None:
        super().__init__(source, samples, backend, store, accuracy)
        self._quantiser = quantiser
        self._exact = frozenset(exact)

    def error_alone(self) -> Callable[[Selection], float]:
        """The error of selections of one layer, without rounding: that is a cost of its own."""
        measured = super().error_alone()

        def error(selection: Selection) -> float:
            return measured({name: replace(c, precision="fp32") for name, c in selection.items()})

        return error

    def with_roundings(self, table: CostTable, progress: Progress) -> CostTable:
        """The table with what each layer's rounding costs, measured on the dense network; without the
        candidates in INT8 where a layer cannot be.
        """
        rows = {}
        for done, (name, row) in enumerate(table.rows.items()):
            progress("measuring each layer's part in the rounding", done, len(table.rows))
            rows[name] = self._with_rounding(name, row)
        return CostTable(rows)

    def model(self, selection: Selection, refine: bool = False) -> onnx.ModelProto:
        """The compressed and repaired network, in INT8 where it is, fused where it is not."""
        layers = layers_in_int8(selection)
        if not layers:
            return super().model(selection, refine)
        repair = self.repair if any(c.ranks for c in selection.values()) else None
        network = decompose_layers(self.source, selection, repair, refine)
        network = self._quantiser.trial(network, layers, self._exact)
        model = model_of(fuse_chains(network, self.source, selection))
        del network
        gc.collect()  # graphs under surgery are cyclic
        return model

    def _with_rounding(self, name: str, row: Row) -> Row:
        if not any(c.precision == "int8" for c in row.candidates):
            return row
        error = None if name in self._exact else self._rounding(name)
        if error is None:
            return replace(
                row, candidates=tuple(c for c in row.candidates if c.precision != "int8")
            )
        # A NaN fails the comparison.
        return replace(row, rounding=(error if error < RUINED_ERROR else RUINED_ERROR) ** 2)

    def _rounding(self, name: str) -> float | None:
        description = {
            **self._describe_network(self._accuracy, {}),
            "layer": name,
            "int8": self._quantiser.describe(),
        }
        found = self._store.kept("rounding", description, lambda: self._quantiser.rounding(name))
        return None if found is None else float(found)

    def _describe_network(self, backend: Backend, selection: Selection) -> dict[str, Any]:
        described = super()._describe_network(backend, selection)
        layers = layers_in_int8(selection)
        if not layers:
            return described
        # A chain in INT8 rounds otherwise than one that is fused.
        return {
            **described,
            "in_int8": layers,
            "int8": self._quantiser.describe(),
            "float32_nodes": sorted(self._exact),
        }
