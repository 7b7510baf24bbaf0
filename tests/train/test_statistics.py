from __future__ import annotations

import weakref
from collections.abc import Iterator

import pytest

torch = pytest.importorskip("torch")

from tdc_train import statistics
from tdc_train.statistics import patch_moments
from torch import Tensor, nn

from tdc_deploy.errors import TdcError


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.b = nn.Conv2d(4, 5, (3, 2), dilation=(1, 2), padding="same")
        self.c = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.b(torch.relu(self.norm(self.a(x)))))
        out: Tensor = self.c(x.mean((2, 3)))
        return out


def setup() -> tuple[Net, list[Tensor]]:
    torch.manual_seed(0)
    return Net().eval(), [torch.randn(n, 3, 9, 8) for n in (3, 2)]


def explicit(net: Net, name: str, batches: list[Tensor]) -> Tensor:
    """From W's own products: each element of a patch is picked by a kernel of ones and zeros."""
    layer = net.get_submodule(name)
    inputs: list[Tensor] = []
    hook = layer.register_forward_pre_hook(lambda _m, x: inputs.append(x[0].detach()))
    with torch.no_grad():
        for images in batches:
            net(images)
    hook.remove()
    x = torch.cat(inputs).double()
    if isinstance(layer, nn.Linear):
        return x.T @ x / len(x)
    assert isinstance(layer, nn.Conv2d)
    size = layer.weight[0].numel()
    picker = torch.eye(size, dtype=torch.float64).reshape(size, *layer.weight.shape[1:])
    patches = torch.nn.functional.conv2d(
        x, picker, None, layer.stride, layer.padding, layer.dilation
    )
    rows = patches.permute(0, 2, 3, 1).reshape(-1, size)
    return rows.T @ rows / len(rows)


@pytest.mark.parametrize("name", ["a", "b", "c"])
@pytest.mark.parametrize("chunk", [1, 2**25])
def test_every_patch_counts_once(name: str, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "CHUNK", chunk)
    net, batches = setup()
    found = patch_moments(net, [name], batches)[name]
    assert found.dtype == torch.float64
    # Both sum float64 products of the same float32 values.
    torch.testing.assert_close(found, explicit(net, name, batches), rtol=1e-12, atol=1e-12)


def test_by_channel_is_the_mean_over_positions() -> None:
    net, batches = setup()
    whole = explicit(net, "a", batches).reshape(3, 9, 3, 9)
    found = patch_moments(net, ["a"], batches, max_patch=26)["a"]
    torch.testing.assert_close(found, torch.einsum("cpdp->cd", whole) / 9)


def test_passes_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    net, batches = setup()
    once = patch_moments(net, ["a", "b", "c"], batches)
    monkeypatch.setattr(statistics, "PASS_BYTES", 1)
    several = patch_moments(net, ["a", "b", "c"], batches)
    assert list(once) == list(several) == ["a", "b", "c"]
    assert all(torch.equal(once[name], several[name]) for name in once)


def test_the_model_stays_as_it_was() -> None:
    net, batches = setup()
    net.train()
    net.norm.eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    patch_moments(net, ["a"], batches)
    assert net.training
    assert not net.norm.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not net.a._forward_pre_hooks


def test_images_are_streamed() -> None:
    net, batches = setup()
    alive: list[weakref.ref[Tensor]] = []
    most = 0

    class Images:
        def __iter__(self) -> Iterator[Tensor]:
            nonlocal most
            for _ in range(5):
                images = batches[0].clone()
                alive.append(weakref.ref(images))
                most = max(most, sum(ref() is not None for ref in alive))
                yield images

    patch_moments(net, ["a", "b"], Images())
    # The one in hand, and the one before until it is replaced.
    assert most <= 2
    with pytest.raises(TdcError, match="empty after one pass"):
        patch_moments(net, ["a"], iter(batches))


def test_mistakes() -> None:
    net, batches = setup()
    with pytest.raises(TdcError, match="no module 'd'"):
        patch_moments(net, ["d"], batches)
    with pytest.raises(TdcError, match="ungrouped"):
        patch_moments(net, ["norm"], batches)
    with pytest.raises(TdcError, match="no images"):
        patch_moments(net, ["a"], [])
    with pytest.raises(TdcError, match="not finite"):
        patch_moments(net, ["a"], [torch.full((1, 3, 9, 8), torch.nan)])
