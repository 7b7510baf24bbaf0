"""How many bits it takes to say where the nonzero numbers are."""

from __future__ import annotations

import torch
from torch import Tensor

GAP_WIDTHS = range(2, 17)


def sparse_bits(mask: Tensor, value_bits: int) -> tuple[int, int]:
    """Bits of the values and of the indices of a sparse tensor, in the cheaper of two formats.

    A bitmap: one bit for each place. Gaps: for each nonzero the number of zeros before it in `width`
    bits, the best width; where a gap is longer, a zero is stored in between as if it were a value
    (S. Han et al., "Deep Compression", ICLR 2016, section 2).
    """
    kept = int(mask.count_nonzero())
    best = (kept * value_bits, mask.numel())
    if not kept:
        return 0, min(mask.numel(), 1)
    places = mask.flatten().nonzero().flatten()
    gaps = torch.diff(places, prepend=places.new_tensor([-1])) - 1
    for width in GAP_WIDTHS:
        stored = kept + int((gaps >> width).sum())
        found = (stored * value_bits, stored * width)
        if sum(found) < sum(best):
            best = found
    return best


def bits_for(choices: int) -> int:
    """Bits that tell so many choices apart."""
    return (choices - 1).bit_length()
