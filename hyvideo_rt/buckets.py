"""Video sizes we build for: what is valid, what it means in latents and tokens, and the named presets."""

import re
from dataclasses import dataclass

from hyvideo_rt.errors import InvalidRequest

SPATIAL_STEP = 16  # VAE 8x and patch 2x
TEMPORAL_STEP = 4


@dataclass(frozen=True)
class Bucket:
    """A video size we build engines for. Pixels and frames; latents are 8x smaller in space, 4x in time.

    Raises InvalidRequest, naming the nearest valid size, unless height and width are positive multiples of
    16 and num_frames is 4n + 1.
    """

    height: int
    width: int
    num_frames: int

    def __post_init__(self) -> None:
        nearest = (
            _nearest(self.height, SPATIAL_STEP, 0),
            _nearest(self.width, SPATIAL_STEP, 0),
            _nearest(self.num_frames, TEMPORAL_STEP, 1),
        )
        if nearest != (self.height, self.width, self.num_frames):
            raise InvalidRequest(
                f"got a video of {self}; height and width must be multiples of {SPATIAL_STEP} "
                f"and the frame count 4n + 1\n"
                f"  nearest valid size: {'x'.join(map(str, nearest))}"
            )

    @classmethod
    def parse(cls, text: str) -> "Bucket":
        """`720x1280x129` (height x width x frames) or the name of a preset."""
        if text in PRESETS:
            return PRESETS[text]
        if match := re.fullmatch(r"(\d+)x(\d+)x(\d+)", text):
            height, width, num_frames = map(int, match.groups())
            return cls(height, width, num_frames)
        raise InvalidRequest(
            f"got the size {text!r}; expected HEIGHTxWIDTHxFRAMES such as 720x1280x129, or a preset\n"
            f"  presets: {', '.join(PRESETS)}"
        )

    def __str__(self) -> str:
        return f"{self.height}x{self.width}x{self.num_frames}"

    @property
    def latent_shape(self) -> tuple[int, int, int]:  # (T, H, W)
        return (self.num_frames - 1) // 4 + 1, self.height // 8, self.width // 8

    @property
    def grid(self) -> tuple[int, int, int]:  # (T, h, w) after the patch (1, 2, 2)
        frames, height, width = self.latent_shape
        return frames, height // 2, width // 2

    @property
    def num_tokens(self) -> int:
        frames, height, width = self.grid
        return frames * height * width


def _nearest(value: int, step: int, offset: int) -> int:
    """The valid value closest to `value`: offset + n * step, positive; halfway goes up."""
    smallest = offset or step
    return max(smallest, (value - offset + step // 2) // step * step + offset)


OFFICIAL_PRESETS = {  # aspect ratios are width x height
    "540p-landscape": Bucket(544, 960, 129),
    "540p-portrait": Bucket(960, 544, 129),
    "540p-4x3": Bucket(624, 832, 129),
    "540p-3x4": Bucket(832, 624, 129),
    "540p-square": Bucket(720, 720, 129),
    "720p-landscape": Bucket(720, 1280, 129),
    "720p-portrait": Bucket(1280, 720, 129),
    "720p-4x3": Bucket(832, 1104, 129),
    "720p-3x4": Bucket(1104, 832, 129),
    "720p-square": Bucket(960, 960, 129),
}
TINY_PRESETS = {
    "tiny-square": Bucket(64, 64, 17),
    "tiny-landscape": Bucket(64, 96, 17),
    "tiny-portrait": Bucket(96, 64, 17),
    "tiny-square-long": Bucket(64, 64, 33),
}
PRESETS = {**OFFICIAL_PRESETS, **TINY_PRESETS}
