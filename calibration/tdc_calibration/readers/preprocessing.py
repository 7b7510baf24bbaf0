"""How an image becomes what a network takes: size, crop, range, mean and deviation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from tdc_deploy.errors import TdcError, did_you_mean

Colours = Literal["rgb", "bgr"]
Interpolation = Literal["bilinear", "bicubic"]
Size = tuple[int, int]


@dataclass(frozen=True)
class Preprocessing:
    """A network takes (pixel · pixel_range / 255 − mean) / std, by channel in the network's order.

    resize: the image's shorter side in pixels, the longer one in proportion; or (height, width).
    crop: (height, width) of the part in the centre that is taken then. Without it the size that the
    network takes is cut out. What still is of another size is scaled to it.
    crop_share: where neither of them is given, the shorter side is scaled so that the network's size
    is this share of it: 0.875 stands for 256 and 224.
    pixel_range: what white is before mean and std, 1 or 255.
    mean, std: one number, or one for each channel.

    As torchvision does it (Resize, CenterCrop, ToTensor, Normalize on a PIL image).

    Raises:
        TdcError: a value that makes no sense.
    """

    resize: int | Size | None = None
    crop: Size | None = None
    crop_share: float = 1.0
    pixel_range: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    colours: Colours = "rgb"
    interpolation: Interpolation = "bilinear"

    def __post_init__(self) -> None:
        sizes = [self.resize] if isinstance(self.resize, int) else [*(self.resize or ())]
        if min([*sizes, *(self.crop or ())], default=1) < 1:
            raise TdcError(
                f"images resized to {self.resize}, cropped to {self.crop}",
                expected="sizes of at least 1 pixel",
            )
        if not 0 < self.crop_share <= 1:
            raise TdcError(f"a crop of {self.crop_share} of the image", expected="above 0, up to 1")
        if self.pixel_range not in (1, 255):
            raise TdcError(f"pixels from 0 to {self.pixel_range}", expected="to 1, or to 255")
        if not all(0 < value < float("inf") for value in self.std):
            raise TdcError(f"a std of {self.std}", expected="numbers above 0")
        if not all(0 <= value <= self.pixel_range for value in self.mean):
            raise TdcError(
                f"a mean of {self.mean} for pixels from 0 to {self.pixel_range:g}",
                expected="a mean within their range",
                fix="pixels from 0 to 255 are --pixel-range 255",
            )
        for value, known in ((self.colours, Colours), (self.interpolation, Interpolation)):
            if value not in get_args(known):
                raise TdcError(f"{value!r}", expected=" or ".join(get_args(known)))


# Means and deviations of the training images, as torchvision and the usual CIFAR-10 recipes have them.
# caffe: as Keras's `caffe` mode and the VGG and ResNet files that came from Caffe.
PRESETS = {
    "imagenet": Preprocessing(
        crop_share=0.875, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
    ),
    "cifar10": Preprocessing(mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616)),
    "unit": Preprocessing(),
    "symmetric": Preprocessing(mean=(0.5,), std=(0.5,)),
    "caffe": Preprocessing(
        crop_share=0.875, pixel_range=255.0, mean=(103.939, 116.779, 123.68), colours="bgr"
    ),
}


def preprocessing(
    preset: str | None = None,
    *,
    resize: int | Size | None = None,
    crop: Size | None = None,
    pixel_range: float | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    colours: str | None = None,
    interpolation: str | None = None,
) -> Preprocessing | None:
    """A named preset, with what is given besides put in its place; None if nothing is given at all.

    Raises:
        TdcError: no such preset, or values that make no sense.
    """
    given = {
        "resize": resize,
        "crop": crop,
        "pixel_range": pixel_range,
        "mean": None if mean is None else tuple(mean),
        "std": None if std is None else tuple(std),
        "colours": colours,
        "interpolation": interpolation,
    }
    changes = {name: value for name, value in given.items() if value is not None}
    if preset is None and not changes:
        return None
    if preset is not None and preset not in PRESETS:
        raise TdcError(
            f"no preset {preset!r}",
            expected=", ".join(PRESETS),
            fix=did_you_mean(preset, PRESETS),
        )
    base = PRESETS[preset] if preset is not None else Preprocessing()
    return replace(base, **changes)  # type: ignore[arg-type]  # they are checked when it is made
