"""From an upright RGB picture to the numbers that a network takes."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.opencv_resize import resize_crop

RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
# Bilinear without antialiasing: see models/opencv_resize.py.
BILINEAR_POINT = "bilinear-point"
RESAMPLES = (*RESAMPLING, BILINEAR_POINT)
RESIZE_RULES = ("short-side", "stretch")
CHANNEL_ORDERS = ("RGB", "BGR")

# Pillow first averages whole pixels of a picture that is more than this many times too large.
_REDUCING_GAP = 2.0
_NEVER_REDUCED_PX = 1 << 20


@dataclass(frozen=True)
class Preprocess:
    """How a network wants its pictures. Picklable: decoder processes get a copy.

    Attributes:
        input_px: Side of the network's square input.
        resize_px: Side of the picture before the centre crop; at least `input_px`.
        resize_rule: `short-side` keeps the proportions and makes the short side `resize_px`;
            `stretch` makes both sides `resize_px`, as Caffe's tools do.
        resample: One of `RESAMPLES`; `bilinear-point` is what Caffe's tools do.
        channel_order: `RGB` or `BGR`.
        mean: Taken from the values 0..255 of each channel, in `channel_order`; where there is a
            mean image, its mean.
        scale: What the differences are multiplied by.
        mean_sha256: Digest of `mean.npy` in hex where a mean image is taken instead, or None.
        mean_image: shape=(3, input_px, input_px), dtype=float32, channels in `channel_order`.
    """

    input_px: int
    resize_px: int
    resize_rule: str
    resample: str
    channel_order: str
    mean: tuple[float, float, float]
    scale: float
    mean_sha256: str | None = None
    mean_image: NDArray[np.float32] | None = field(default=None, compare=False, repr=False)

    @property
    def description(self) -> dict[str, Any]:
        """The fields as `bundle.toml` has them: all but what is absent and the image itself."""
        absent = {"mean_image"} if self.mean_sha256 else {"mean_image", "mean_sha256"}
        return {name: value for name, value in vars(self).items() if name not in absent}

    @property
    def min_side_px(self) -> int:
        """Short side below which a reduced picture has lost what the network would see.

        A decoder that reduces while it reads does well to leave twice as much: docs/models.md
        has what that costs in bits. Point sampling sees single pixels of the whole picture, so
        there it is more than any picture has.
        """
        return _NEVER_REDUCED_PX if self.resample == BILINEAR_POINT else self.resize_px

    def pixels(self, image: Image.Image) -> NDArray[np.uint8]:
        """Resize and crop one picture.

        Args:
            image: A picture of mode `RGB`, of any size.

        Returns:
            The central square, shape=(input_px, input_px, 3), dtype=uint8, always in RGB order.

        Raises:
            ValueError: The picture is not of mode `RGB`.
        """
        if image.mode != "RGB":
            raise ValueError(f"expected a picture of mode RGB, got {image.mode}")
        if self.resample == BILINEAR_POINT:
            return self._sampled(image)
        square = (self.input_px, self.input_px)
        box = self.centre(*image.size, share=self.input_px / self.resize_px)
        # Only what survives the crop is resized.
        resized = image.resize(
            square, RESAMPLING[self.resample], box=box, reducing_gap=_REDUCING_GAP
        )
        return np.asarray(resized)

    def _sampled(self, image: Image.Image) -> NDArray[np.uint8]:
        sides = image.size
        if self.resize_rule == "short-side":
            width, height = (side * self.resize_px // min(sides) for side in sides)
        else:
            width = height = self.resize_px
        # Caffe crops at whole pixels, and at the lower one where the centre is between two.
        left, top = (width - self.input_px) // 2, (height - self.input_px) // 2
        return resize_crop(
            np.asarray(image), width=width, height=height, left=left, top=top, side=self.input_px
        )

    def centre(
        self, width: int, height: int, *, share: float
    ) -> tuple[float, float, float, float]:
        """Find the part in the middle of a picture that keeps the proportions of the input.

        Args:
            width: Of the picture, in pixels.
            height: Of the picture, in pixels.
            share: Of the sides that there are: 1 keeps as much as `resize_rule` allows.

        Returns:
            Left, top, right and bottom edge, in pixels.
        """
        short = min(width, height)
        across, down = (short, short) if self.resize_rule == "short-side" else (width, height)
        left, top = (width - across * share) / 2, (height - down * share) / 2
        return left, top, left + across * share, top + down * share

    def normalise(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Turn pixels into the network's input.

        Args:
            pixels: shape=(N, input_px, input_px, 3), dtype=uint8, RGB.

        Returns:
            shape=(N, 3, input_px, input_px), dtype=float32, channels in `channel_order`.

        Raises:
            ValueError: `pixels` has another shape or dtype.
        """
        expected = (self.input_px, self.input_px, 3)
        if pixels.dtype != np.uint8 or pixels.shape[1:] != expected:
            raise ValueError(
                f"expected uint8 pixels of shape (N, {self.input_px}, {self.input_px}, 3), "
                f"got {pixels.dtype} of shape {pixels.shape}"
            )
        planes = np.empty((len(pixels), 3, self.input_px, self.input_px), np.float32)
        means = np.array(self.mean, np.float32) if self.mean_image is None else self.mean_image
        for channel, mean in enumerate(means):
            source = channel if self.channel_order == "RGB" else 2 - channel
            np.subtract(pixels[..., source], mean, out=planes[:, channel])
        planes *= np.float32(self.scale)
        return planes
