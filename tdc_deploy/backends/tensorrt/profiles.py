"""The shapes that an engine takes: least, best and largest of every input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_graphsurgeon as gs

from tdc_deploy.backends.tensorrt.options import EngineOptions
from tdc_deploy.errors import TdcError
from tdc_deploy.graph.shapes import Shape, Shapes, input_shapes

Ranges = dict[str, "ShapeRange"]


@dataclass(frozen=True)
class ShapeRange:
    """An input's shapes: least, the one that the engine is optimised for, largest."""

    min: Shape
    opt: Shape
    max: Shape


def shape_ranges(
    graph: gs.Graph, options: EngineOptions, given: Mapping[str, Shape] | None = None
) -> Ranges:
    """The range of every input.

    An input without --min-shapes or --max-shapes takes only its --opt-shapes, as with trtexec; without
    that its `given` shape, or the file's with an open batch size taken as 1.

    Raises:
        TdcError: a shape does not fit its input, or is not between the least and the largest.
    """
    opt = input_shapes(graph, {**(given or {}), **options.opt_shapes})
    ranges = {}
    for name, best in opt.items():
        ends = (options.min_shapes.get(name), options.max_shapes.get(name))
        if any(ends) and name not in options.opt_shapes and name not in (given or {}):
            raise TdcError(
                f"--min-shapes or --max-shapes for {name!r}, but no --opt-shapes",
                expected="the shape that the engine is to be fastest at",
                fix=f"give --opt-shapes {name}:{'x'.join(map(str, best))}",
            )
    least = _checked(graph, opt, options.min_shapes)
    largest = _checked(graph, opt, options.max_shapes)
    for name, best in opt.items():
        ranges[name] = ShapeRange(least[name], best, largest[name])
        _check_order(name, ranges[name])
    return ranges


def _checked(graph: gs.Graph, opt: Shapes, given: Mapping[str, Shape]) -> Shapes:
    return input_shapes(graph, {**opt, **given})


def _check_order(name: str, found: ShapeRange) -> None:
    if not len(found.min) == len(found.opt) == len(found.max) or not all(
        low <= best <= high for low, best, high in zip(found.min, found.opt, found.max, strict=True)
    ):
        texts = ("x".join(map(str, shape)) for shape in (found.min, found.opt, found.max))
        raise TdcError(
            "shapes {} (min), {} (opt), {} (max) of {!r}".format(*texts, name),
            expected="min <= opt <= max in every dimension",
        )
