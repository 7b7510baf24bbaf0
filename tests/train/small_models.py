"""Small networks and plans for the tests of the Tucker parts; needs torch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tdc_deploy.plan_file import LayerChoice, Plan
from tdc_deploy.types import Candidate, Ranks

torch.set_num_threads(1)

TUCKER2 = Candidate("tucker2", Ranks(6, 5), "fused")


class Block(nn.Module):
    """A residual block with a 1x1 shortcut in a Sequential, as ResNets have it."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = nn.Sequential(
            nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        out = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(out)) + self.downsample(x))


class SmallNet(nn.Module):
    """image [N, 3, 16, 16] → logits [N, 10]: nested and listed modules, one used twice, one grouped."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.layer1 = nn.Sequential(Block(16, 16, 1), Block(16, 24, 2))
        self.blocks = nn.ModuleList([nn.Conv2d(24, 24, 3, padding=1), nn.Conv2d(24, 24, 1)])
        self.heads = nn.ModuleDict({"twice": nn.Conv2d(24, 24, 3, padding=1)})
        self.grouped = nn.Conv2d(24, 24, 3, padding=1, groups=4)
        self.fc = nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer1(self.stem(x))
        for block in self.blocks:
            x = torch.relu(block(x))
        x = torch.relu(self.heads["twice"](torch.relu(self.heads["twice"](x))))
        return self.fc(torch.relu(self.grouped(x)).mean((2, 3)))


def small_net(seed: int = 0) -> SmallNet:
    """In eval mode, with BatchNorm that does something."""
    torch.manual_seed(seed)
    model = SmallNet()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)  # type: ignore[union-attr, operator]
            module.running_var.uniform_(0.5, 2.0)  # type: ignore[union-attr, operator]
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)
    return model.eval()


def plan(**layers: Candidate) -> Plan:
    """A plan of these layers; `__` in a name stands for a dot."""
    return Plan({name.replace("__", "."): LayerChoice(choice) for name, choice in layers.items()})


def every_form() -> Plan:
    """A plan for `SmallNet` with each form that there is."""
    return plan(
        layer1__0__conv1=TUCKER2,
        layer1__0__conv2=Candidate("tucker2", Ranks(16, 16), "fused"),
        layer1__1__conv1=Candidate("tucker_in", Ranks(4, 24)),
        layer1__1__conv2=Candidate("tucker_out", Ranks(24, 7)),
        layer1__1__downsample__0=Candidate("svd", Ranks(5, 5)),
        blocks__0=TUCKER2,
        blocks__1=Candidate("svd", Ranks(8, 8)),
        heads__twice=TUCKER2,
        fc=Candidate("svd", Ranks(4, 4)),
    )


def images(count: int = 4, seed: int = 1) -> Tensor:
    """Inputs of `SmallNet`."""
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


def relative(found: Tensor, wanted: Tensor) -> float:
    """‖found − wanted‖ / ‖wanted‖ in float64."""
    wanted = wanted.detach().double()
    return float((found.detach().double() - wanted).norm() / wanted.norm())
