from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from tdc_train.training.norm_statistics import re_estimate
from torch import Tensor, nn

from tdc_deploy.errors import TdcError


def network() -> tuple[nn.Sequential, list[Tensor]]:
    """A network whose running statistics are not those of its batches."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5))
    state = net.state_dict()
    state["1.running_mean"].fill_(7)
    state["1.running_var"].fill_(9)
    return net, [torch.randn(4, 3, 6, 6) + i for i in range(3)]


def test_the_average_over_the_batches() -> None:
    net, batches = network()
    net.train()
    net[1].eval()
    re_estimate(net, batches)
    with torch.no_grad():
        outputs = [net[0](images).double().transpose(0, 1).flatten(1) for images in batches]
    mean = torch.stack([y.mean(1) for y in outputs]).mean(0)
    variance = torch.stack([y.var(1) for y in outputs]).mean(0)
    # The statistics are float32.
    torch.testing.assert_close(
        net.state_dict()["1.running_mean"].double(), mean, rtol=1e-5, atol=1e-6
    )
    torch.testing.assert_close(
        net.state_dict()["1.running_var"].double(), variance, rtol=1e-5, atol=1e-6
    )
    assert net[1].momentum == 0.1
    assert net[2].training
    assert not net[1].training


def test_nothing_is_lost_without_images() -> None:
    net, _ = network()
    with pytest.raises(TdcError, match="no images"):
        re_estimate(net, [])
    assert net.state_dict()["1.running_mean"].tolist() == [7] * 4


def test_nothing_is_lost_when_a_batch_fails() -> None:
    net, batches = network()
    with pytest.raises(RuntimeError):
        re_estimate(net, [batches[0], torch.randn(4, 5, 6, 6)])
    assert net.state_dict()["1.running_mean"].tolist() == [7] * 4
    assert net.state_dict()["1.running_var"].tolist() == [9] * 4
    assert net[1].momentum == 0.1
    assert net.training
