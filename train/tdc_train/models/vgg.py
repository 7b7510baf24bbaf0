"""VGG-16 with normalisation (Simonyan and Zisserman, ICLR 2015), with torchvision's parameter names."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from tdc_deploy.errors import TdcError
from tdc_train.models.norms import norm_by_name

# Channels of the 3x3 convolutions; 0 is a pooling of 2x2.
LAYOUT = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0)
HIDDEN = 4096


class Vgg(nn.Module):
    """13 convolutions, then three linear layers, or one for small images."""

    def __init__(
        self, num_classes: int, width: float, norm: str, small_images: bool, dropout: float
    ) -> None:
        super().__init__()
        make_norm = norm_by_name(norm)
        layers: list[nn.Module] = []
        channels = 3
        for full in LAYOUT:
            if not full:
                layers.append(nn.MaxPool2d(2, 2))
                continue
            wide = _scaled(full, width)
            layers += [nn.Conv2d(channels, wide, 3, padding=1), make_norm(wide), nn.ReLU(True)]
            channels = wide
        self.features = nn.Sequential(*layers)
        pooled = 1 if small_images else 7
        self.avgpool = nn.AdaptiveAvgPool2d(pooled)
        inputs = channels * pooled * pooled
        hidden = _scaled(HIDDEN, width)
        self.classifier = (
            nn.Sequential(nn.Linear(inputs, num_classes))
            if small_images
            else nn.Sequential(
                nn.Linear(inputs, hidden),
                nn.ReLU(True),
                nn.Dropout(dropout),
                nn.Linear(hidden, hidden),
                nn.ReLU(True),
                nn.Dropout(dropout),
                nn.Linear(hidden, num_classes),
            )
        )
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Images [N, 3, H, W], H and W at least 32 → logits [N, num_classes]."""
        return cast(Tensor, self.classifier(self.avgpool(self.features(x)).flatten(1)))


def _scaled(channels: int, width: float) -> int:
    scaled = round(channels * width)
    if scaled < 1:
        raise TdcError(f"width {width} leaves no channels", expected="above 0, such as 0.25")
    return scaled


def _initialise(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(cast(Tensor, module.bias))
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0, 0.01)
            nn.init.zeros_(module.bias)


def vgg16_bn(
    num_classes: int = 1000,
    width: float = 1.0,
    norm: str = "batch",
    small_images: bool = False,
    dropout: float = 0.5,
) -> Vgg:
    """138 million parameters; `width` scales all channels, `small_images` leaves one linear layer."""
    return Vgg(num_classes, width, norm, small_images, dropout)
