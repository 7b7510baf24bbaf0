"""Measure a layer in each of its forms, alone, at its real shape."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray

from tdc_deploy.backends.base import Backend
from tdc_deploy.errors import TdcError
from tdc_deploy.profiling.measure import LAYER, Feeds
from tdc_deploy.profiling.store import Store
from tdc_deploy.progress import Progress, silent
from tdc_deploy.tucker.cost import chain_layers
from tdc_deploy.types import Candidate, ConvLayer, Precision, Timing

OPSET = 17
IR_VERSION = 8

LayerModel: TypeAlias = Callable[[ConvLayer, Candidate], onnx.ModelProto]

# So many layers are built before the first of them is measured: what an interruption loses at most.
BATCH = 24


def layer_model(layer: ConvLayer, candidate: Candidate) -> onnx.ModelProto:
    """A model of just this layer in this form and its type; input x [batch, C, H, W], random weights.

    Convolution time does not depend on the values, as long as none is denormal.
    """
    rng = np.random.default_rng(0)
    parts = chain_layers(layer, candidate)
    nodes, weights = [], []
    for i, part in enumerate(parts):
        fan_in = part.c_in * part.kernel[0] * part.kernel[1]
        values = rng.standard_normal((part.c_out, part.c_in, *part.kernel), np.float32)
        values = (values / fan_in**0.5).astype(layer.dtype)
        weights.append(onnx.numpy_helper.from_array(values, f"w{i}"))
        weights.append(onnx.numpy_helper.from_array(np.full(part.c_out, 0.1, layer.dtype), f"b{i}"))
        output = "y" if i == len(parts) - 1 else f"t{i + 1}"
        nodes.append(
            onnx.helper.make_node(
                "Conv",
                ["x" if i == 0 else f"t{i}", f"w{i}", f"b{i}"],
                [output],
                strides=part.strides,
                pads=part.pads,
                dilations=part.dilations,
            )
        )
    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(layer.dtype))
    x = onnx.helper.make_tensor_value_info("x", kind, [layer.batch, layer.c_in, *layer.in_hw])
    y = onnx.helper.make_tensor_value_info("y", kind, [layer.batch, layer.c_out, *layer.out_hw])
    graph = onnx.helper.make_graph(nodes, "layer", [x], [y], weights)
    opset = onnx.helper.make_opsetid("", OPSET)
    return onnx.helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION)


class LayerProfiler:
    """Latencies of layers on one backend, asked of the store first.

    `model` makes the model of a layer in a form; `revisions` says of a candidate's precision which version
    of its form that is, which is part of what a latency is kept under. `measured` counts the latencies
    that had to be measured; `refused` are the errors of candidates that the backend cannot build or run.
    """

    def __init__(
        self,
        backend: Backend,
        store: Store,
        model: LayerModel = layer_model,
        revisions: Mapping[Precision, int] | None = None,
    ) -> None:
        self.backend = backend
        self.store = store
        self.measured = 0
        self.refused: list[TdcError] = []
        self._model = model
        self._revisions = revisions or {}
        self._asked: tuple[ConvLayer, Candidate] | None = None

    def latency(self, layer: ConvLayer, candidate: Candidate) -> float:
        """The median latency in milliseconds."""
        return self.latencies([(layer, candidate)])[0]

    def latencies(
        self,
        wanted: Sequence[tuple[ConvLayer, Candidate]],
        progress: Progress = silent,
        what: str = "measuring layers",
    ) -> list[float]:
        """The median latencies in milliseconds; infinity for a refused candidate, which is not kept.

        Raises:
            TdcError: the backend refuses a dense layer.
        """
        known = [self.store.get("layer", self._describe(*pair)) for pair in wanted]
        found = [math.inf if value is None else Timing(**value).median for value in known]
        missing = [i for i, value in enumerate(known) if value is None]
        done = len(wanted) - len(missing)
        for start in range(0, len(missing), BATCH):
            batch = missing[start : start + BATCH]
            timings = self._measure([wanted[i] for i in batch])
            for i in batch:
                progress(what, done, len(wanted))
                with self._named(wanted[i]):
                    timing = next(timings)
                found[i] = self._keep(*wanted[i], timing)
                done += 1
        progress(what, done, len(wanted))
        return found

    def _measure(
        self, wanted: Sequence[tuple[ConvLayer, Candidate]]
    ) -> Iterator[Timing | TdcError]:
        def models() -> Iterator[tuple[onnx.ModelProto, Feeds]]:
            for pair in wanted:
                self._asked = pair
                model = self._model(*pair)
                yield model, _feeds(model, pair[0])
            self._asked = None

        return self.backend.measure_layers(models(), LAYER)

    @contextmanager
    def _named(self, pair: tuple[ConvLayer, Candidate]) -> Iterator[None]:
        """What ends the measurements names what met it: the last that the backend asked for, or this pair
        if it has asked for all.
        """
        try:
            yield
        except TdcError as error:
            layer, candidate = self._asked or pair
            how = f" ({candidate.implementation})" if candidate.ranks else ""
            raise TdcError(
                f"layer {layer.name!r} as {candidate}{how}: {error.received}",
                expected=error.expected,
                fix=error.fix,
            ) from error

    def _keep(self, layer: ConvLayer, candidate: Candidate, timing: Timing | TdcError) -> float:
        if isinstance(timing, TdcError):
            if candidate.form == "dense":
                raise timing
            self.refused.append(timing)
            return math.inf
        self.measured += 1
        self.store.put("layer", self._describe(layer, candidate), asdict(timing))
        return timing.median

    def _describe(self, layer: ConvLayer, candidate: Candidate) -> dict[str, Any]:
        """Everything that changes the latency: the layer without its name, the form without its error."""
        shape = asdict(layer)
        del shape["name"]
        form = asdict(candidate)
        del form["error"], form["latency_ms"]
        described = {"backend": self.backend.describe(), "layer": shape, "candidate": form}
        revision = self._revisions.get(candidate.precision)
        return described if revision is None else {**described, "revision": revision}


def _feeds(model: onnx.ModelProto, layer: ConvLayer) -> dict[str, NDArray[Any]]:
    """Random values of the type that the model takes, which may be quantised."""
    (value,) = model.graph.input
    dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))
    shape = (layer.batch, layer.c_in, *layer.in_hw)
    x = np.random.default_rng(1).standard_normal(shape, np.float32)
    return {value.name: (32 * x if dtype.kind in "iu" else x).astype(dtype, copy=False)}
