"""What the layers' kernels come to in other forms, and what they lose: by weight, or on real inputs."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tdc_deploy.ranks.candidates import candidate_errors
from tdc_deploy.tucker import Bases, Factors, decompose, mode_bases
from tdc_deploy.tucker.data_aware import SWEEPS, data_aware_decompose, weighted_error
from tdc_deploy.tucker.data_aware_errors import data_aware_errors
from tdc_deploy.types import Candidate, Form, Ranks

Array = NDArray[np.float64]

# Data-aware factors that are kept: trials of a search, and the build after it, ask for the same again.
CACHED_BYTES = 2**29


class Decompositions:
    """The decompositions of named kernels, each computed once.

    A layer with a second moment of its inputs among `moments` is decomposed data-aware, and its errors
    are shares of the output's energy on those inputs. Any other, one whose inputs are all zero too, is
    decomposed by its weights, and its errors are shares of the kernel's energy.
    """

    def __init__(
        self,
        kernel_of: Callable[[str], NDArray[np.floating]],
        moments: Mapping[str, NDArray[np.float64]],
    ) -> None:
        self._kernel_of = kernel_of
        self._moments = moments
        self._bases: dict[str, Bases] = {}
        self._errors: dict[str, dict[int, Array]] = {}
        self._factors: OrderedDict[tuple[str, Form, Ranks, bool], Factors] = OrderedDict()

    def is_data_aware(self, name: str) -> bool:
        """Whether the layer is decomposed for the inputs that it sees."""
        moment = self._moments.get(name)
        return moment is not None and bool(moment.any()) and bool(self._kernel_of(name).any())

    def by_channel(self, name: str) -> bool:
        """Whether the layer's second moment is of its channels, not of its patches."""
        shape = self._kernel_of(name).shape
        return len(self._moments[name]) < math.prod(shape[1:])

    def errors(self, name: str, candidates: Sequence[Candidate]) -> list[float]:
        """What each candidate loses; all from one factorisation for the layer.

        Data-aware, it is the error of where the alternation starts: an upper bound of what `factors` lose.
        """
        if self.is_data_aware(name):
            return self._data_aware_errors(name, candidates)
        pointwise = self._kernel_of(name).shape[2:] == (1, 1)
        bases = None if pointwise else self.bases(name)
        return candidate_errors(self._kernel_of(name), candidates, bases)

    def error(self, name: str, candidate: Candidate, refined: bool = True) -> float:
        """What the (`refined`) factors of a candidate lose; by weight, what HOSVD's do."""
        if candidate.ranks is None or not self.is_data_aware(name):
            return self.errors(name, [candidate])[0]
        factors = self.factors(name, candidate, refined)
        return weighted_error(self._kernel_of(name), self._moments[name], factors)

    def factors(self, name: str, candidate: Candidate, refine: bool = False) -> Factors:
        """The factors of a candidate that is not dense; `refine` iterates (by weight HOOI, data-aware the
        sweeps of `data_aware_decompose`) from where it would else end.
        """
        assert candidate.ranks is not None
        if not self.is_data_aware(name):
            bases = None if candidate.form == "svd" else self.bases(name)
            return decompose(self._kernel_of(name), candidate.form, candidate.ranks, refine, bases)
        key = (name, candidate.form, candidate.ranks, refine)
        if key not in self._factors:
            self._factors[key] = data_aware_decompose(
                self._kernel_of(name),
                self._moments[name],
                candidate.form,
                candidate.ranks,
                SWEEPS if refine else 0,
            )
            self._evict()
        self._factors.move_to_end(key)
        return self._factors[key]

    def _data_aware_errors(self, name: str, candidates: Sequence[Candidate]) -> list[float]:
        weight = self._kernel_of(name)
        pairs = [_ranks(candidate, weight.shape) for candidate in candidates]
        known = self._errors.setdefault(name, {})
        missing = {r_in for r_in, _ in pairs} - set(known)
        if missing:
            # With what loses nothing on the input's side: it is asked for next, and factorising takes long.
            missing |= {weight.shape[1]} - set(known)
            known |= data_aware_errors(weight, self._moments[name], missing) or {}
        return [float(known[r_in][r_out]) for r_in, r_out in pairs]

    def bases(self, name: str) -> Bases:
        """`mode_bases` of a layer's kernel."""
        if name not in self._bases:
            self._bases[name] = mode_bases(self._kernel_of(name))
        return self._bases[name]

    def _evict(self) -> None:
        while len(self._factors) > 1 and sum(map(_bytes, self._factors.values())) > CACHED_BYTES:
            self._factors.popitem(last=False)


def _ranks(candidate: Candidate, shape: tuple[int, ...]) -> tuple[int, int]:
    """(r_in, r_out) whose error it is: a form without a rank in a mode keeps that mode whole."""
    outputs, inputs = shape[:2]
    ranks = candidate.ranks
    if ranks is None:
        return inputs, outputs
    r_in = inputs if candidate.form in ("svd", "tucker_out") else ranks.r_in
    r_out = outputs if candidate.form == "tucker_in" else ranks.r_out
    return r_in, r_out


def _bytes(factors: Factors) -> int:
    parts = (factors.first, factors.core, factors.last)
    return sum(part.nbytes for part in parts if part is not None)
