from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from tdc_calibration import calibrate

from tests.calibration.test_calibrate import images, network, save

torch = pytest.importorskip("torch")


def torch_twin(model: onnx.ModelProto) -> Any:
    """The same network in torch, with the same names for its convolutions."""
    weights = {t.name: torch.tensor(numpy_helper.to_array(t)) for t in model.graph.initializer}

    class Twin(torch.nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.first = torch.nn.Conv2d(3, 6, 3, padding=1)
            self.down = torch.nn.Conv2d(6, 8, 3, stride=2, padding=1, bias=False)
            self.short = torch.nn.Conv2d(6, 8, 1, stride=2, bias=False)
            self.also = torch.nn.Conv2d(6, 8, 1, stride=2, bias=False)
            self.grouped = torch.nn.Conv2d(8, 8, 3, padding=1, groups=2, bias=False)
            self.last = torch.nn.Conv2d(8, 10, (5, 3), padding=(2, 1), bias=False)

        def forward(self, x: Any) -> Any:
            a = torch.relu(self.first(x))
            e = torch.relu(self.down(a) + self.short(a) + self.also(a))
            return self.last(torch.relu(self.grouped(e))).mean((2, 3))

    twin = Twin().eval()
    with torch.no_grad():
        for name, module in twin.named_children():
            module.weight.copy_(weights[f"{name}.w"])
        twin.first.bias.copy_(weights["first.b"])
    return twin


@pytest.mark.parametrize("max_patch", [4608, 60])
def test_the_moments_of_torch(max_patch: int, tmp_path: Path) -> None:
    """tdc_train's patch_moments, of float64 products, defines what a second moment is."""
    from tdc_train.statistics import patch_moments

    x = images(64)
    model = network()
    found = calibrate(
        save(model, tmp_path / "model.onnx"), [x], ranges=False, max_patch=max_patch
    ).moments
    batches = list(torch.tensor(x).split(16))
    expected = patch_moments(torch_twin(model), list(found), batches, max_patch)
    for name, moment in found.items():
        other = expected[name].numpy()
        assert moment.shape == other.shape
        # Float32 products here; and the two libraries' activations differ by a few units in the last place.
        assert np.abs(moment - other).max() <= 2e-6 * other.diagonal().max(), name
