"""Everything that is measured of a model from data, in one pass where memory allows."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from os import PathLike
from pathlib import Path

import numpy as np
import onnx_graphsurgeon as gs

from tdc_calibration.moments import MAX_PATCH, Accumulator, accumulator_of
from tdc_calibration.moments.accumulator import Array
from tdc_calibration.moments.positive import settle
from tdc_calibration.ranges import RangeOf
from tdc_calibration.readers import Preprocessing, Reader, input_spec, open_data
from tdc_calibration.readers.iterables import Source as Iterables
from tdc_calibration.result import Calibration
from tdc_calibration.statistics_file import is_calibration, write_calibration
from tdc_calibration.watch import PASS_BYTES, Observer, check_tensors, watch
from tdc_deploy.errors import TdcError
from tdc_deploy.files import check_distinct, check_writable
from tdc_deploy.graph.read import model_files
from tdc_deploy.graph.shapes import Shape, infer_types
from tdc_deploy.progress import Progress, silent
from tdc_deploy.source import Source, read_source

# Whose inputs 8 bits can stand for.
PRODUCTS = {"Conv", "ConvTranspose", "Gemm", "MatMul"}


def calibrate(
    model: Path | Source,
    data: Path | str | Reader | Iterables,
    output: Path | None = None,
    *,
    preprocessing: Preprocessing | None = None,
    labels: Path | None = None,
    samples: int | None = None,
    shapes: Mapping[str, Shape] | None = None,
    moments: bool = True,
    ranges: bool | Collection[str] = True,
    max_patch: int = MAX_PATCH,
    threads: int = 0,
    pass_bytes: int = PASS_BYTES,
    progress: Progress = silent,
) -> Calibration:
    """Measure second moments of the convolutions' input patches, and ranges of activations, over data.

    Args:
        output: file to write the result to, for `read_calibration`.
        data: as `readers.open_data` takes it, with `preprocessing` and `labels`; or a reader of it.
        samples: at most that many of the data.
        shapes: of inputs that the model leaves open.
        moments: measure those of every layer that can be decomposed.
        ranges: of what convolutions and matrix products take, and the outputs; or of these tensors; or
            none.
        max_patch: patches with more elements are measured by channel only.
        pass_bytes: memory that may be taken in one pass over the data.

    Raises:
        TdcError: the model or the data cannot be read or do not fit each other; activations that are not
            finite, or too large to be squared; the output cannot be written.
    """
    if output is not None:
        check_writable(output)
        _check_not_read(output, data, labels)
    source = model if isinstance(model, Source) else read_source(Path(model), shapes)
    if isinstance(data, Reader):
        reader = data if samples is None else data.limited(samples)
    else:
        reader = open_data(
            data, input_spec(source), preprocessing=preprocessing, labels=labels, most=samples
        )
    if output is not None:
        check_distinct([output], [*model_files(source.path), Path(reader.where)])
    layers = _accumulators(source, max_patch) if moments else {}
    names = _factors(source) if ranges is True else list(ranges or ())
    check_tensors(source, names)
    found_ranges = {name: RangeOf(name) for name in names}
    inputs = {name: str(source.convs[name].node.inputs[0].name) for name in layers}
    watched = _watched(inputs, layers, found_ranges)
    seen = watch(source, reader, watched, threads=threads, pass_bytes=pass_bytes, progress=progress)
    found, raised = _moments(inputs, layers)
    ranged = {name: watcher.result() for name, watcher in found_ranges.items()}
    calibration = Calibration(
        model_sha256=source.sha256,
        digests=reader.digests,
        samples=seen.samples,
        moments=found,
        by_channel=tuple(name for name, way in layers.items() if way.by_channel),
        skipped=_skipped(source) if moments else {},
        ranges={name: measured for name, measured in ranged.items() if measured is not None},
        accuracy=seen.accuracy,
        warnings=tuple(_warnings(reader, seen.samples, raised)),
    )
    if output is not None:
        write_calibration(calibration, output)
    return calibration


def _check_not_read(output: Path, data: object, labels: Path | None) -> None:
    """Raise TdcError if the output is one of the data's files, before they are read."""
    read = [] if labels is None else [Path(labels)]
    if isinstance(data, (str, PathLike)):
        folder = Path(data)
        read.append(folder)
        inside = folder.is_dir() and folder.resolve() in output.resolve().parents
        if inside and output.is_file() and not is_calibration(output):
            read.append(output)
    check_distinct([output], read)


def _accumulators(source: Source, max_patch: int) -> dict[str, Accumulator]:
    """By layer; one for layers that see the same patches."""
    shared: dict[object, Accumulator] = {}
    layers = {}
    for name, layer in source.plannable.items():
        tensor = source.convs[name].node.inputs[0].name
        key = (tensor, layer.kernel, layer.strides, layer.pads, layer.dilations)
        layers[name] = shared.setdefault(key, accumulator_of(layer, max_patch))
    return layers


def _watched(
    inputs: Mapping[str, str],
    layers: Mapping[str, Accumulator],
    ranges: Mapping[str, RangeOf],
) -> dict[str, list[Observer]]:
    watched: dict[str, list[Observer]] = {}
    for name, way in layers.items():
        observers = watched.setdefault(inputs[name], [])
        if all(way is not other for other in observers):
            observers.append(way)
    for tensor, watcher in ranges.items():
        watched.setdefault(tensor, []).append(watcher)
    return watched


def _moments(
    inputs: Mapping[str, str], layers: Mapping[str, Accumulator]
) -> tuple[dict[str, Array], list[str]]:
    """The moments by layer, and the layers that a ridge was added for."""
    done: dict[int, Array] = {}
    found, raised = {}, []
    for name, way in layers.items():
        if id(way) not in done:
            with np.errstate(all="ignore"):  # looked for in the result
                moment = way.moment()
            if not np.isfinite(moment).all():
                raise TdcError(
                    f"tensor {inputs[name]!r}, the input of {name!r}, holds NaN, infinity or numbers "
                    "too large to be squared",
                    expected="finite activations",
                    fix="check the samples' preprocessing, and the model's weights",
                )
            if settle(moment) > 0:
                raised.append(name)
            done[id(way)] = moment
        found[name] = done[id(way)]
    return found, raised


def _factors(source: Source) -> list[str]:
    """What convolutions and matrix products take, and the outputs; weights and integers left out."""
    types = infer_types(source.network)
    graph = source.network.graph
    taken = [t for node in graph.nodes if node.op in PRODUCTS for t in node.inputs]
    names = [t.name for t in [*taken, *graph.outputs] if isinstance(t, gs.Variable)]
    return [name for name in dict.fromkeys(names) if types.get(name, np.dtype(int)).kind == "f"]


def _skipped(source: Source) -> dict[str, str]:
    plannable = source.plannable
    return {
        name: conv.reason or "it came in decomposed"
        for name, conv in source.convs.items()
        if name not in plannable
    }


def _warnings(reader: Reader, samples: int, raised: list[str]) -> list[str]:
    found = []
    if samples == 1:
        found.append(
            f"{reader.where} holds one sample: what is measured on it says little about others"
        )
    elif raised:
        found.append(
            f"the inputs of {len(raised)} layers ({raised[0]!r} among them) span fewer directions than "
            f"a patch has on these {samples} samples; more would help"
        )
    return found
