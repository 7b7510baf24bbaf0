"""A layer in the plugin library's hands: its tensors in the layout of a tactic, launches, checks. Needs
torch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.gpu.problem import Problem
from tdc_deploy.plugin.library import Library, Tactic
from tdc_deploy.plugin.params import Params, layer_params

POISON = float("nan")


class OurLayer:
    """One problem for tactics of one layout: channel last, or channel first for TDC's own scheme."""

    def __init__(self, library: Library, problem: Problem, *, channel_first: bool = False) -> None:
        self.library = library
        self.problem = problem
        self.channel_first = channel_first
        case = problem.case
        self._tensors = {
            name: getattr(problem, name).contiguous()
            for name in ("first", "first_bias", "core", "core_bias", "last", "bias")
        }
        self._tensors["x"] = self._laid_out(problem.x)
        if problem.residual is not None:
            self._tensors["residual"] = self._laid_out(problem.residual)
        shape = (case.layer.batch, case.layer.c_out, *case.layer.out_hw)
        self._tensors["y"] = self._laid_out(torch.full(shape, POISON).to(problem.x))
        self.params = layer_params(case.layer, case.ranks, problem.slopes)
        for name, tensor in self._tensors.items():
            setattr(self.params, name, tensor.data_ptr())

    def tactics(self) -> list[Tactic]:
        """The legal tactics of the problem's arithmetic and this layout."""
        device = self.library.current_device()
        return [
            tactic
            for tactic in map(self.library.decode, self.library.tactics())
            if tactic.arithmetic == self.problem.arithmetic
            and (tactic.family == "channel-first") == self.channel_first
            and self.library.is_legal(tactic.number, self.params, device)
        ]

    def prepare(self, number: int) -> Params:
        """The parameters with this tactic's workspace and counters, both fresh."""
        sizes = {
            "workspace": self.library.workspace_bytes(number, self.params),
            "counters": 4 * self.library.counter_count(number, self.params),
        }
        for name, size in sizes.items():
            # What is in a workspace must not matter; counters are zero.
            tensor = torch.full((size,), 0xFF if name == "workspace" else 0, dtype=torch.uint8)
            self._tensors[name] = tensor.to(self.problem.x.device)
            setattr(self.params, name, self._tensors[name].data_ptr() if size else None)
        return self.params

    def launcher(self, number: int) -> Callable[[], None]:
        """A function that launches the tactic on torch's current stream."""
        params = self.prepare(number)
        return lambda: self.library.launch(number, params, self._stream())

    def output(self, number: int) -> Tensor:
        """Y [n, m, h, w] of two launches, the second of which finds what the first has left."""
        self._tensors["y"].fill_(POISON)
        launch = self.launcher(number)
        for _ in range(2):
            launch()
        if self.problem.x.is_cuda:
            torch.cuda.synchronize()
        return self._channels_first(self._tensors["y"])

    def padding_is_zero(self) -> bool:
        """Whether the lanes of Y above its channels are zeros, as tucker_conv.h promises."""
        if self.channel_first:
            return True
        extra = self._tensors["y"][..., self.problem.case.layer.c_out :]
        return bool((extra == 0).all())

    def _stream(self) -> int:
        return torch.cuda.current_stream().cuda_stream if self.problem.x.is_cuda else 0

    def _laid_out(self, tensor: Tensor) -> Tensor:
        """[n, c, h, w] in this layout; channels of fp16 padded to a multiple of 8 with NaN, which must
        never be used."""
        if self.channel_first:
            return tensor.contiguous()
        last = tensor.permute(0, 2, 3, 1).contiguous()
        missing = -last.shape[-1] % 8 if tensor.dtype == torch.float16 else 0
        return torch.nn.functional.pad(last, (0, missing), value=POISON)

    def _channels_first(self, tensor: Tensor) -> Tensor:
        if self.channel_first:
            return tensor
        return tensor[..., : self.problem.case.layer.c_out].permute(0, 3, 1, 2)
