"""Which array is which input or output, and whether it fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tdc_deploy.errors import TdcError
from tdc_deploy.runtime.arrays import View, overlap
from tdc_deploy.runtime.tensors import TensorInfo

Places = list[tuple[str, int]]


class InputBinder:
    """Binds a call's arguments to a model's inputs."""

    def __init__(self, inputs: Sequence[TensorInfo]) -> None:
        self._by_name = {info.name: info for info in inputs}
        self._names = list(self._by_name)
        self._expected = ", ".join(self._names)
        self._shared = _shared_sizes(inputs)

    def bind(self, arrays: Sequence[Any], named: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments by input name: in order, in one dict, or by keyword.

        Raises:
            TdcError: an input is missing, unknown or given twice.
        """
        if len(arrays) == 1 and isinstance(arrays[0], Mapping):
            feeds: dict[str, Any] = {}
            self._add(feeds, arrays[0])
        else:
            if len(arrays) > len(self._names):
                raise TdcError(
                    f"{len(arrays)} inputs", expected=f"{len(self._names)}: {self._expected}"
                )
            feeds = dict(zip(self._names, arrays, strict=False))
        self._add(feeds, named)
        if len(feeds) < len(self._names):
            missing = [name for name in self._names if name not in feeds]
            raise TdcError(f"no input {', '.join(missing)}", expected=self._expected)
        return feeds

    def check(self, views: Mapping[str, View]) -> None:
        """Hold every input to its declared type and shape.

        Raises:
            TdcError: one does not fit, or two differ in a size that the model has one name for.
        """
        for name, view in views.items():
            check_fits(self._by_name[name], view)
        for places in self._shared:
            _check_equal(places, views)

    def _add(self, feeds: dict[str, Any], named: Mapping[str, Any]) -> None:
        for name, array in named.items():
            if name not in self._by_name or name in feeds:
                what = "is given twice" if name in feeds else "is no input"
                raise TdcError(f"{name!r} {what}", expected=self._expected)
            feeds[name] = array


def bind_outputs(outputs: Sequence[TensorInfo], out: Any) -> dict[str, Any]:
    """The caller's buffers by output name; those that are not given are not in it.

    `out` is None, one array where there is one output, a list or tuple of one array (or None) for
    each, or a dict.

    Raises:
        TdcError: too many or too few, or an unknown name.
    """
    names = [info.name for info in outputs]
    if out is None:
        return {}
    if isinstance(out, Mapping):
        for name in out:
            if name not in names:
                raise TdcError(f"{name!r} is no output", expected=", ".join(names))
        return {name: array for name, array in out.items() if array is not None}
    arrays = out if isinstance(out, (list, tuple)) else [out]
    if len(arrays) != len(names):
        raise TdcError(
            f"{len(arrays)} output buffers",
            expected=f"{len(names)}: {', '.join(names)}",
            fix="give a dict of those that you want to reuse",
        )
    return {name: a for name, a in zip(names, arrays, strict=True) if a is not None}


def check_separate(inputs: Mapping[str, View], out: Mapping[str, View]) -> None:
    """Refuse buffers that overlap: a model may write one output while it still reads.

    Raises:
        TdcError: an output overlaps an input or another output.
    """
    checked: dict[str, View] = {}
    for name, view in out.items():
        for other, taken in [*inputs.items(), *checked.items()]:
            if overlap(view, taken):
                raise TdcError(
                    f"out {name!r} overlaps the memory of {other!r}",
                    expected="a buffer of its own",
                )
        checked[name] = view


def check_fits(info: TensorInfo, view: View) -> None:
    """Hold an array to a tensor's type and shape; TdcError if it does not fit."""
    if view.dtype != info.dtype:
        raise TdcError(
            f"{info.name!r} is {view.dtype.name}",
            expected=info.dtype.name,
            fix=f"convert it with .astype(numpy.{info.dtype.name})",
        )
    if not info.fits(view.shape):
        raise TdcError(f"{info.name!r} has shape {view.shape}", expected=info.expected_shape())


def _shared_sizes(inputs: Sequence[TensorInfo]) -> list[Places]:
    """Where each open size that several inputs share stands: [(input, axis), …]."""
    places: dict[str, Places] = {}
    for info in inputs:
        for axis, size in enumerate(info.shape):
            if isinstance(size, str):
                places.setdefault(size, []).append((info.name, axis))
    return [found for found in places.values() if len(found) > 1]


def _check_equal(places: Places, views: Mapping[str, View]) -> None:
    (name, axis), *others = places
    size = views[name].shape[axis]
    for other, other_axis in others:
        if views[other].shape[other_axis] != size:
            raise TdcError(
                f"{other!r} has shape {views[other].shape}, {name!r} {views[name].shape}",
                expected=f"size {size} at axis {other_axis} of {other!r}: the model has one for both",
            )
