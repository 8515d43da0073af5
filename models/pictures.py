"""How a network that somebody brings wants its pictures."""

import dataclasses
import hashlib
from dataclasses import dataclass

from models.bundle_writer import npy
from models.errors import OptionError
from models.mean import Mean, cropped
from models.preprocess import Preprocess

# Caffe's tools resize to this, whatever the network then crops out of the middle.
_CAFFE_RESIZE_PX = 256
_LEAST_CAFFE_CROP_PX = 224


@dataclass(frozen=True, eq=False)
class Pictures:
    """How a network wants its pictures, as far as it is known.

    Attributes:
        resize_px: Side before the centre crop; None for 256 where the network takes 224 to 256
            pixels, and for no margin elsewhere.
        crop_px: Side of the network's input; None for what the network says.
        resize_rule: One of `models.preprocess.RESIZE_RULES`.
        resample: One of `models.preprocess.RESAMPLES`.
        channel_order: `RGB` or `BGR`.
        mean: Taken from the values 0 to 255, in `channel_order`.
        deviation: What each channel is divided by after that, or None.
        scale: What the differences are multiplied by.
    """

    resize_px: int | None = None
    crop_px: int | None = None
    resize_rule: str = "stretch"
    resample: str = "bilinear-point"
    channel_order: str = "BGR"
    mean: Mean = (0.0, 0.0, 0.0)
    deviation: tuple[float, float, float] | None = None
    scale: float = 1.0

    def preprocess(self, input_px: int) -> Preprocess:
        """Complete the rules for a network whose input has a given side.

        Raises:
            OptionError: The sides do not go together.
            BundleError: The mean image goes with neither of them.
        """
        resize_px = self.resize_px or _usual_resize_px(input_px)
        if resize_px < input_px:
            raise OptionError(
                f"pictures cannot be resized to {resize_px} and cropped to {input_px} pixels; "
                "choose a larger --resize"
            )
        mean, image = cropped(self.mean, resize_px=resize_px, input_px=input_px)
        return Preprocess(
            input_px=input_px,
            resize_px=resize_px,
            resize_rule=self.resize_rule,
            resample=self.resample,
            channel_order=self.channel_order,
            mean=mean,
            scale=self.scale,
            mean_sha256=None if image is None else hashlib.sha256(npy(image)).hexdigest(),
            mean_image=image,
        )

    def with_one_scale(self) -> "Pictures":
        """Express the deviation by the scale, which is all that Caffe knows.

        Raises:
            OptionError: The channels' deviations differ.
        """
        if self.deviation is None:
            return self
        if len(set(self.deviation)) != 1:
            raise OptionError(
                "Caffe files have one scale for all channels; give --scale in place of --std"
            )
        return dataclasses.replace(self, deviation=None, scale=self.scale / self.deviation[0])


CAFFE_PICTURES = Pictures()
"""What Caffe's own tools do."""

ONNX_PICTURES = Pictures(resize_rule="short-side", resample="bilinear", channel_order="RGB")
"""What networks from PyTorch mostly expect."""


def _usual_resize_px(input_px: int) -> int:
    usual = _LEAST_CAFFE_CROP_PX <= input_px <= _CAFFE_RESIZE_PX
    return _CAFFE_RESIZE_PX if usual else input_px
