"""A finished video: checked, written whole or not at all, and readable back with its metadata.

`to_uint8` and `check_not_flat` keep bad pictures from becoming files; `save_mp4`, `save_png` and
`save_contact_sheet` write beside the target and move the finished file into place.
PyAV and Pillow are imported by the functions that use them: importing this module stays cheap.
"""

import errno
import itertools
import json
import os
import secrets
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hyvideo_rt.errors import InvalidRequest, NumericalError, OutputError

if TYPE_CHECKING:
    from PIL.Image import Image

Frames = npt.NDArray[np.uint8]
Metadata = Mapping[str, str | int | float]

# x264's constant quality 18: visually lossless. Its macroblock tree is off because with it the same pictures
# gave other bits from time to time (8 of 80 runs of one `generate`, 64x64, PyAV 18.1; 0 of 80 without it).
X264_OPTIONS = {"crf": "18", "x264-params": "mbtree=0"}
BT709 = 1  # ITU-T H.273: the code of BT.709 as primaries, as transfer function and as matrix
LIMITED_RANGE = 1  # luma 16..235, what players assume of H.264
FLAT_SPREAD = 2  # levels of 255
MAX_NAME_BYTES = 255  # ext4, xfs, btrfs, apfs
NAME_PROMPT_CHARACTERS = 100
THUMBNAIL_WIDTH = 320  # pixels
CAPTION_HEIGHT = 16
GAP = 4
SHEET_COLUMNS = 8

REMEDIES = {
    errno.ENOSPC: "free some space there, or write to another folder",
    errno.EDQUOT: "free some space there, or write to another folder",
    errno.EFBIG: "raise the file size limit (ulimit -f), or write to another folder",
    errno.EACCES: "make the folder writable, or write to another folder",
    errno.EPERM: "make the folder writable, or write to another folder",
    errno.EROFS: "the file system is mounted read-only: write to another folder",
    errno.ENOTDIR: "a folder on the way is a file: write to another folder",
    errno.EEXIST: "a folder on the way is a file: write to another folder",
    errno.ENAMETOOLONG: "choose a shorter name",
}


@dataclass(frozen=True, eq=False)
class Video:
    """Pictures `frames` uint8 [F, H, W, 3] (RGB), how they were made, and the seconds each stage took."""

    frames: Frames
    fps: int = 24
    metadata: Metadata = field(default_factory=dict)
    timings_s: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shape, dtype = self.frames.shape, self.frames.dtype
        if dtype != np.uint8 or len(shape) != 4 or shape[3] != 3 or 0 in shape:
            raise InvalidRequest(
                f"got frames {dtype} {list(shape)}; expected uint8 [F, H, W, 3]\n"
                f"  convert decoded chunks with to_uint8"
            )

    @property
    def prompt(self) -> str:
        return str(self.metadata.get("prompt", ""))


def to_uint8(chunk: Tensor) -> Tensor:
    """Decoded pictures [3, F, H, W] in 0..1, any float dtype -> uint8 [F, H, W, 3], same device.

    Truncates rather than rounds, as the original does. Raises NumericalError on NaN or infinity.
    """
    if not torch.stack(chunk.aminmax()).isfinite().all():
        broken = chunk.numel() - int(chunk.isfinite().sum())
        raise NumericalError(
            f"got {broken} NaN or infinite values of {chunk.numel()} in decoded frames; expected 0..1\n"
            f"  try --precision bf16 --vae-precision fp32; if it stays, verify the weights"
        )
    return (chunk.float().clamp(0, 1) * 255).to(torch.uint8).permute(1, 2, 3, 0).contiguous()


def check_not_flat(frames: Frames) -> None:
    """Raises NumericalError if a whole video, uint8 [F, H, W, 3], is one value, black for example."""
    low, high = int(frames.min()), int(frames.max())
    if high - low <= FLAT_SPREAD:
        raise NumericalError(
            f"got a video whose every pixel lies in {low}..{high} of 0..255; expected a picture\n"
            f"  try --precision bf16 --vae-precision fp32; if it stays, verify the weights"
        )


def save_mp4(video: Video, path: Path) -> None:
    """H.264 yuv420p in BT.709 at the video's exact size, metadata in the tags `title` and `comment`.

    Raises OutputError or, for a wrong name or an odd size, InvalidRequest; `path` is then as it was before.
    """
    target = _target(path, ".mp4")
    _, height, width, _ = video.frames.shape
    if height % 2 or width % 2:
        raise InvalidRequest(
            f"got frames of {height}x{width}; yuv420p needs an even height and width\n"
            f"  use a size in multiples of 16, or save_png for a single frame"
        )
    with _replacing(target) as temporary, _ffmpeg_errors(target):
        _encode(video, temporary)
        _check_frames(temporary, target, expected=len(video.frames))


def save_png(video: Video, path: Path) -> None:
    """The picture of a one-frame video, metadata in the text chunks `Title` and `Comment`."""
    from PIL.Image import fromarray
    from PIL.PngImagePlugin import PngInfo

    target = _target(path, ".png")
    if len(video.frames) != 1:
        raise InvalidRequest(
            f"got a video of {len(video.frames)} frames for {target.name}; a PNG holds one\n"
            f"  use save_mp4, or save_contact_sheet for an image of frames"
        )
    tags = PngInfo()
    tags.add_itxt("Title", _one_line(video.prompt))
    tags.add_itxt("Comment", json.dumps(dict(video.metadata)))
    with _replacing(target) as temporary:
        fromarray(video.frames[0]).save(temporary, format="PNG", pnginfo=tags)


def save_contact_sheet(videos: Video | Sequence[Video], path: Path, columns: int = SHEET_COLUMNS) -> None:
    """Evenly spaced frames, first and last included: one row a video, its prompt as a caption above it."""
    from PIL import Image

    target = check_sheet_path(path)
    videos = [videos] if isinstance(videos, Video) else videos
    if not videos or columns < 1:
        raise InvalidRequest(
            f"got {len(videos)} videos in {columns} columns; expected at least one of each\n"
            f"  leave columns at its default of 8"
        )
    rows = [_row(video, columns) for video in videos]
    size = max(row.width for row in rows), sum(row.height for row in rows)
    sheet = Image.new("RGB", size, "white")
    tops = itertools.accumulate((row.height for row in rows), initial=0)
    for row, top in zip(rows, tops, strict=False):
        sheet.paste(row, (0, top))
    with _replacing(target) as temporary:
        sheet.save(temporary)


def check_sheet_path(path: Path) -> Path:
    """The absolute path of a contact sheet, refused before any video is made if it cannot be one."""
    return _target(path, ".png", ".jpg", ".jpeg")


def evenly_spaced(video: Video, count: int) -> Video:
    """`count` of its frames, first and last included, or all that it has."""
    indices = np.linspace(0, len(video.frames) - 1, min(count, len(video.frames))).round().astype(int)
    return replace(video, frames=video.frames[indices])


def read_metadata(path: Path) -> dict[str, str | int | float]:
    """The metadata of a file that save_mp4 or save_png wrote; InvalidRequest for any other file."""
    try:
        comment = _png_comment(path) if path.suffix.lower() == ".png" else _mp4_comment(path)
        metadata = json.loads(comment)
    except (OSError, ValueError) as error:
        raise _not_ours(path, str(error)) from error
    if not isinstance(metadata, dict):
        raise _not_ours(path, "its comment is not a JSON object")
    return metadata


def output_path(folder: Path, prompt: str, seed: int, suffix: str, now: datetime) -> Path:
    """A free path in `folder`, named as the original does: `2025-01-31-10:00:00_seed42_A cat walks.mp4`.

    The name fits in 255 bytes of UTF-8, cut between characters; control characters become spaces;
    `_1`, `_2` and so on keep an existing file from being overwritten.
    """
    start = f"{now:%Y-%m-%d-%H:%M:%S}_seed{seed}_"
    words = _one_line(prompt[:NAME_PROMPT_CHARACTERS].replace("/", ""))
    ends = (f"_{number}{suffix}" if number else suffix for number in itertools.count())
    paths = (folder / f"{start}{_cut(words, MAX_NAME_BYTES - len(start + end))}{end}" for end in ends)
    return next(path for path in paths if not os.path.lexists(path))


def _target(path: Path, *suffixes: str) -> Path:
    """`path` made absolute, after everything that can be refused before any work is done."""
    if path.suffix.lower() not in suffixes:
        raise InvalidRequest(
            f"got the file name {path.name!r}; expected one that ends in {' or '.join(suffixes)}\n"
            f"  rename it, for example {path.stem or 'video'}{suffixes[0]}"
        )
    if os.path.isdir(path):
        raise OutputError(f"got {path}, which is a folder; expected a file\n  name a file in it")
    return path.absolute()  # FFmpeg reads `2025-01-31-10:...` as a protocol, never `/...`


@contextmanager
def _replacing(target: Path) -> Iterator[Path]:
    """A hidden file beside `target` to write to: it becomes `target` at the end, or vanishes on failure."""
    temporary = target.parent / f".{secrets.token_hex(8)}{target.suffix}"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.touch(exist_ok=False)
            yield temporary
            _sync(temporary)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    except OutputError:
        raise
    except OSError as error:
        raise _not_written(target, error) from error


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _not_written(target: Path, error: Exception) -> OutputError:
    number = error.errno if isinstance(error, OSError) else None
    reason = os.strerror(number) if number else f"{type(error).__name__}: {error}"
    return OutputError(
        f"got {reason!r} while writing {target}; expected a writable folder with room for it\n"
        f"  {REMEDIES.get(number or 0, 'run `hyvideo-rt doctor`: it checks the encoder and the disk')}"
    )


def _not_ours(path: Path, reason: str) -> InvalidRequest:
    return InvalidRequest(
        f"got {path} without readable metadata ({reason}); expected a file that hyvideo-rt wrote\n"
        f"  check the path; other programs drop the metadata when they convert a file"
    )


@contextmanager
def _ffmpeg_errors(target: Path) -> Iterator[None]:
    """PyAV's errors as OutputError. ValueError: it has no libx264. IndexError: a file without a stream."""
    import av

    try:
        yield
    except (av.FFmpegError, ValueError, IndexError) as error:
        raise _not_written(target, error) from error


def _encode(video: Video, path: Path) -> None:
    import av

    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        container.metadata["title"] = _one_line(video.prompt)
        container.metadata["comment"] = json.dumps(dict(video.metadata))
        stream = container.add_stream("libx264", rate=video.fps, options=X264_OPTIONS)
        stream.height, stream.width = video.frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = BT709
        context.color_range = LIMITED_RANGE
        for picture in video.frames:
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(
                format="yuv420p", dst_colorspace=BT709, dst_color_range=LIMITED_RANGE
            )
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _check_frames(path: Path, target: Path, expected: int) -> None:
    """Decodes the finished file: a write error that FFmpeg did not report shows here."""
    import av

    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        readable = sum(1 for _ in container.decode(stream))
    if readable != expected:
        raise OutputError(
            f"got {readable} readable frames in the file written for {target}; expected {expected}\n"
            f"  check the disk's free space and health, then save again"
        )


def _mp4_comment(path: Path) -> str:
    import av

    with path.open("rb") as file, av.open(file, format="mp4") as container:
        return container.metadata.get("comment", "")


def _png_comment(path: Path) -> str:
    from PIL import Image

    with Image.open(path, formats=["PNG"]) as image:
        image.load()  # text may follow the pixels
        return str(image.info.get("Comment", ""))


def _row(video: Video, columns: int) -> "Image":
    from PIL import Image, ImageDraw

    pictures = [Image.fromarray(frame) for frame in evenly_spaced(video, columns).frames]
    for picture in pictures:
        picture.thumbnail((THUMBNAIL_WIDTH, video.frames.shape[1]))
    width, height = pictures[0].size
    caption = CAPTION_HEIGHT if video.prompt else 0
    row = Image.new("RGB", (len(pictures) * (width + GAP) - GAP, caption + height + GAP), "white")
    for column, picture in enumerate(pictures):
        row.paste(picture, (column * (width + GAP), caption))
    ImageDraw.Draw(row).text((2, 2), _one_line(video.prompt[: row.width]), fill="black")
    return row


def _one_line(text: str) -> str:
    """`text` with a space for each control character, line separator and lone surrogate."""
    return "".join(" " if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") else c for c in text)


def _cut(text: str, num_bytes: int) -> str:
    """As many whole characters of `text` as fit in `num_bytes` of UTF-8."""
    return text.encode()[:num_bytes].decode(errors="ignore")
