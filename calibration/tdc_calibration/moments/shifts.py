"""Second moments of patches from correlations between shifted images: for stride 1.

Two kernel positions p and q see pixels that are q − p apart, wherever the patch is. So what E[x_p·x_qᵀ]
sums over patches, R(q − p) = Σ_u x(u)·x(u + q − p)ᵀ sums over the image, but for the rows and columns at
the border that p and q never see together; those are multiplied on their own and taken away.

R for all shifts comes from Fourier transforms X(f) of the images, padded with zeros so that nothing wraps
around: R(δ) = Σ_f w(f)·Re(exp(−2πi f·δ)·P(f)), P(f) = X(f)·X(f)ᴴ, and P is first summed over the images.
It is Hermitian, and half of it is enough: R = C + S, of which C(δ) = Σ_f w(f)·cos(2πf·δ)·Re P(f) is
symmetric, and S(δ) = Σ_f w(f)·sin(2πf·δ)·Im P(f) antisymmetric. For 3x3 kernels that takes a twentieth of
the multiplications of unfolded patches.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy.linalg import get_blas_funcs

from tdc_calibration.moments.accumulator import Array
from tdc_deploy.types import ConvLayer

Pair = tuple[int, int]
# Pixels of one axis that are multiplied: first + i and first + step + i, of `count` i.
Line = tuple[int, int, int]
Term = tuple[Line, Line]

# Images that are collected before their transforms are multiplied, and the memory that they may take.
IMAGES = 128
IMAGES_BYTES = 2**26

# Frequencies at a time, and the memory that their products may take.
FREQUENCIES = 64
PRODUCTS_BYTES = 2**26


class Shifts:
    """Collects images, and sums their correlations at all shifts when there are enough."""

    by_channel = False

    def __init__(self, layer: ConvLayer, dtype: type[np.floating] = np.float32) -> None:
        self._layer = layer
        self._dtype = np.dtype(dtype)
        self.size = layer.c_in * layer.kernel[0] * layer.kernel[1]
        reach = [d * (k - 1) for d, k in zip(layer.dilations, layer.kernel, strict=True)]
        padded = [
            scipy.fft.next_fast_len(n + r, real=True)
            for n, r in zip(layer.in_hw, reach, strict=True)
        ]
        self._padded: Pair = padded[0], padded[1]
        image = layer.c_in * math.prod(self._padded) * self._dtype.itemsize
        self._images = min(IMAGES, max(1, IMAGES_BYTES // image))
        self._terms = {pair: _terms(layer, *pair) for pair in _pairs(layer)}
        needed = {term for terms in self._terms.values() for term, _ in terms}
        self._whole = sorted(term for term in needed if self._is_whole(term))
        self._parts = sorted(needed.difference(self._whole))
        self._buffer: NDArray[Any] | None = None
        self._sums: Array | None = None
        self._border: Array | None = None
        self._filled = self._count = 0

    @property
    def macs(self) -> int:
        """Multiplications for one image, but for the transform."""
        # Four for a complex one, of half of the pairs; two for a real factor.
        products = 2 * self._frequencies
        turns = 4 * self._frequencies * len(self._whole) / self._images
        border = sum(row[2] * column[2] for row, column in self._parts)
        return int(self._layer.c_in**2 * (products + turns + border))

    @property
    def bytes(self) -> int:
        """Memory of the images, the sums and the result."""
        channels = self._layer.c_in
        images = self._images * channels * math.prod(self._padded)
        sums = channels**2 * (2 * len(self._whole) + len(self._parts))
        return self._dtype.itemsize * images + 8 * (sums + self.size**2)

    def add(self, x: NDArray[Any]) -> None:
        """Add images [n, C, H, W]."""
        channels = self._layer.c_in
        if self._buffer is None:
            # Frequencies come first in its transform, as they are multiplied; zeros around the images stay.
            self._buffer = np.zeros((*self._padded, self._images, channels), self._dtype)
            self._sums = np.zeros((2, len(self._whole), channels, channels))
            self._border = np.zeros((len(self._parts), channels, channels))
        height, width = self._layer.in_hw
        for image in x:
            self._buffer[:height, :width, self._filled] = image.transpose(1, 2, 0)
            self._filled += 1
            if self._filled == self._images:
                self._flush()

    def moment(self) -> Array:
        """E[x·xᵀ] of all that was added, float64, symmetric."""
        self._flush()
        assert self._sums is not None
        assert self._border is not None
        channels = self._layer.c_in
        found = dict(zip(self._parts, self._border, strict=True))
        for term, even, odd in zip(self._whole, *self._sums, strict=True):
            found[term] = np.tril(even + odd) + np.tril(even - odd, -1).T
        self._buffer = self._sums = self._border = None
        positions = _positions(self._layer)
        moment = np.empty((channels, len(positions), channels, len(positions)))
        rows = np.empty((channels, len(positions), channels))
        for i, p in enumerate(positions):
            for j, q in enumerate(positions):
                rows[:, j] = self._block(found, p, q)
            # At once: single columns of the result lie far apart.
            moment[:, i] = rows.transpose(0, 2, 1)
        moment /= self._count * math.prod(self._layer.out_hw)
        return moment.reshape(self.size, self.size)

    def _block(self, found: Mapping[Term, Array], p: Pair, q: Pair) -> Array | float:
        """The sum of x_p·x_qᵀ over patches."""
        if q < p:
            return np.transpose(self._block(found, q, p))
        block = sum(sign * found[term] for term, sign in self._terms[p, q])
        return (block + np.transpose(block)) / 2 if p == q else block

    @property
    def _frequencies(self) -> int:
        return self._padded[0] * (self._padded[1] // 2 + 1)

    def _is_whole(self, term: Term) -> bool:
        """True if nothing that is in the image is left out of a term."""
        sizes = self._layer.in_hw
        return all(line == _overlap(size, line[1]) for line, size in zip(term, sizes, strict=True))

    def _flush(self) -> None:
        if not self._filled:
            return
        assert self._buffer is not None
        assert self._border is not None
        images = self._buffer[:, :, : self._filled]
        self._add_whole(images)
        for term, total in zip(self._parts, self._border, strict=True):
            total += _part(images, term)
        self._count += self._filled
        self._filled = 0

    def _add_whole(self, images: NDArray[Any]) -> None:
        assert self._sums is not None
        channels, count = self._layer.c_in, images.shape[2]
        spectra = scipy.fft.rfft2(images, axes=(0, 1)).reshape(-1, count, channels)
        herk = get_blas_funcs("herk", (spectra,))
        factors = self._factors().astype(self._dtype)
        at_once = PRODUCTS_BYTES // (channels**2 * spectra.itemsize)
        at_once = min(FREQUENCIES, max(1, at_once))
        # BLAS fills the upper triangle of a column-major matrix: here, the lower one, conjugated.
        powers = np.zeros((at_once, channels, channels), spectra.dtype)
        for start in range(0, len(spectra), at_once):
            some = spectra[start : start + at_once]
            for x, power in zip(some, powers, strict=False):
                herk(1.0, x.T, c=power.T, overwrite_c=1)
            parts = powers[: len(some)].view(self._dtype).reshape(len(some), -1)
            turned = factors[:, start : start + len(some)] @ parts
            turned = turned.reshape(2, -1, channels, channels, 2)
            self._sums[0] += turned[0, ..., 0]
            self._sums[1] -= turned[1, ..., 1]

    def _factors(self) -> Array:
        """[2·shifts, frequencies]: what P(f) counts for C(δ), and for S(δ)."""
        height, width = self._padded
        down = np.array([row[1] for row, _ in self._whole])
        right = np.array([column[1] for _, column in self._whole])
        rows, columns = np.arange(height), np.arange(width // 2 + 1)
        angles = np.add(
            np.multiply.outer(down, rows)[:, :, None] / height,
            np.multiply.outer(right, columns)[:, None, :] / width,
        )
        # A real signal's spectrum has a conjugate half, which is left out: what has one there counts twice.
        weights = np.where((columns == 0) | (2 * columns == width), 1, 2) / (height * width)
        turns = np.exp(2j * np.pi * angles) * weights
        return np.concatenate([turns.real, turns.imag]).reshape(2 * len(down), -1)


def _part(images: NDArray[Any], term: Term) -> NDArray[Any]:
    """Σ_u x(u)·x(u + step)ᵀ over some pixels of images [H, W, n, C]."""
    (row, down, height), (column, right, width) = term
    here = images[row : row + height, column : column + width]
    row, column = row + down, column + right
    there = images[row : row + height, column : column + width]
    a, b = (side.reshape(-1, images.shape[3]) for side in (here, there))
    return np.asarray(a.T @ b)


def _pairs(layer: ConvLayer) -> Iterator[tuple[Pair, Pair]]:
    """Pairs of kernel positions, each once: the first not after the second."""
    return itertools.combinations_with_replacement(_positions(layer), 2)


def _positions(layer: ConvLayer) -> list[Pair]:
    return [(i, j) for i in range(layer.kernel[0]) for j in range(layer.kernel[1])]


def _terms(layer: ConvLayer, p: Pair, q: Pair) -> list[tuple[Term, int]]:
    """What E[x_p·x_qᵀ] is the sum of, with signs: all pixels, without the rows at the border that are not
    in patches, without such columns, and with what is in both, which was taken away twice.
    """
    lines = []
    for axis in (0, 1):
        whole = _overlap(layer.in_hw[axis], (q[axis] - p[axis]) * layer.dilations[axis])
        outside = _outside(layer, axis, p[axis], q[axis])
        signed = [(whole, 1), *((line, -1) for line in outside)]
        lines.append([(line, sign) for line, sign in signed if line[2] > 0])
    signs: dict[Term, int] = {}
    for (row, row_sign), (column, column_sign) in itertools.product(*lines):
        signs[row, column] = signs.get((row, column), 0) + row_sign * column_sign
    # Where no patch sees anything, all is taken away again.
    return [(term, sign) for term, sign in signs.items() if sign]


def _overlap(size: int, step: int) -> Line:
    """All pixels of an axis with a partner `step` away."""
    return max(0, -step), step, size - abs(step)


def _outside(layer: ConvLayer, axis: int, p: int, q: int) -> list[Line]:
    """Pixels with a partner that no patch holds at kernel positions p and q of an axis: before the first
    patch, and after the last.
    """
    size, dilation = layer.in_hw[axis], layer.dilations[axis]
    before, after = layer.pads[axis], layer.pads[axis + 2]
    step = (q - p) * dilation
    first, _, count = _overlap(size, step)
    low = min(max(0, min(p, q) * dilation - before), count)
    high = min(max(0, (layer.kernel[axis] - 1 - max(p, q)) * dilation - after), count)
    return [(first, step, low), (first + count - high, step, high)]
