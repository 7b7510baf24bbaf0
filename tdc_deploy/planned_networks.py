"""The networks that a plan can come to, before they are engines."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

from tdc_deploy.compress import Selection, decompose_layers, fuse_chains
from tdc_deploy.graph.network import Network
from tdc_deploy.plan_file import Plan
from tdc_deploy.quantising import Quantised
from tdc_deploy.repair import Repair
from tdc_deploy.revert import PLANNED, Reverted
from tdc_deploy.source import Source
from tdc_deploy.types import Candidate


class PlannedNetworks:
    """The networks that a plan can come to: fused, native, some of it taken back, or in INT8.

    `selection` is the plan without INT8: its chains fused then, as far as they can be.
    """

    def __init__(self, source: Source, plan: Plan | None, repair: Repair | None) -> None:
        self.source = source
        self._plan = plan
        self.selection = {} if plan is None else _without_int8(plan.selection)
        self._repair = repair

    def unfused(self) -> Network:
        """Every chain as convolutions, those that came in too."""
        return self._whole.copy()

    @property
    def int8_layers(self) -> list[str] | None:
        """The layers that the plan has in INT8, where it has others too."""
        chosen = {} if self._plan is None else self._plan.layers
        int8 = [n for n, choice in chosen.items() if choice.candidate.precision == "int8"]
        return int8 if 0 < len(int8) < len(chosen) else None

    def mixed(self, quantised: Quantised) -> Network:
        """The plan with what is in INT8 as it is in `quantised`, and chains fused where it is not."""
        assert self._plan is not None
        return fuse_chains(quantised.network.copy(), self.source, self._plan.selection)

    def native(self) -> Network:
        """Every chain of the plan as convolutions."""
        native = {name: replace(c, implementation="native") for name, c in self.selection.items()}
        return fuse_chains(self._whole.copy(), self.source, native)

    def planned(self, reverted: Reverted = PLANNED) -> Network:
        """As planned, but for what is taken back."""
        if not reverted.dense:
            whole, selection = self._whole.copy(), self.selection
        else:
            selection = {n: c for n, c in self.selection.items() if n not in reverted.dense}
            whole = decompose_layers(self.source, selection, self._repair, refine=True)
        return fuse_chains(whole, self.source, selection, reverted.native)

    @cached_property
    def _whole(self) -> Network:
        return decompose_layers(self.source, self.selection, self._repair, refine=True)


def _without_int8(selection: Selection) -> dict[str, Candidate]:
    """INT8 has no fused chain, so that a plan's chains in it say nothing of fusing them."""
    return {
        name: replace(
            candidate,
            precision="fp16",
            implementation="fused" if candidate.form == "tucker2" else "native",
        )
        if candidate.precision == "int8"
        else candidate
        for name, candidate in selection.items()
    }
