"""Pictures of a finished video, made from its file when first asked for and kept beside it.

Most videos are never previewed, so no video pays for it at its end. Its caller asks for one
at a time; it is made frame by frame.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from hyvideo_rt.server.outputs import Outputs

if TYPE_CHECKING:
    from PIL.Image import Image

SHEET_COLUMNS, SHEET_ROWS = 4, 4
SHEET_WIDTH = 320  # pixels of one picture, at most
MEDIA_TYPES = {"thumbnail": "image/webp", "spritesheet": "image/jpeg"}


def preview(outputs: Outputs, job_id: str, variant: str, num_frames: int) -> Path:
    """The file of a thumbnail (the first frame) or a spritesheet. Raises FileNotFoundError with the video."""
    path = outputs.file(job_id, variant)
    if not path.exists():
        partial = outputs.new_partial(job_id, path.suffix)
        try:
            _draw(outputs.video(job_id), variant, num_frames).save(partial, quality=85)
            outputs.publish(partial, path, {})
        finally:
            partial.unlink(missing_ok=True)
        if not outputs.video(job_id).exists():  # deleted meanwhile, and this must not outlive it
            path.unlink(missing_ok=True)
            raise FileNotFoundError(job_id)
    return path


def _draw(video: Path, variant: str, num_frames: int) -> "Image":
    if variant == "thumbnail":
        return next(_frames(video, {0}))
    shown = min(num_frames, SHEET_COLUMNS * SHEET_ROWS)
    wanted = {round(i * (num_frames - 1) / max(shown - 1, 1)) for i in range(shown)}
    return _sheet(_frames(video, wanted), shown)


def _sheet(frames: Iterator["Image"], count: int) -> "Image":
    """In rows of four, from left to right and from top to bottom."""
    from PIL import Image

    sheet: Image.Image | None = None
    for i, frame in enumerate(frames):
        frame.thumbnail((SHEET_WIDTH, frame.height))
        if sheet is None:
            rows = -(-count // SHEET_COLUMNS)
            sheet = Image.new("RGB", (min(count, SHEET_COLUMNS) * frame.width, rows * frame.height))
        sheet.paste(frame, (i % SHEET_COLUMNS * frame.width, i // SHEET_COLUMNS * frame.height))
    assert sheet is not None, "every video has a frame"
    return sheet


def _frames(video: Path, wanted: set[int]) -> Iterator["Image"]:
    """Those of the wanted indices, in order; nothing behind the last one is decoded."""
    import av
    from PIL import Image

    last = max(wanted)
    with video.open("rb") as file, av.open(file, "r", format="mp4") as container:
        for i, frame in enumerate(container.decode(video=0)):
            if i in wanted:
                yield Image.fromarray(frame.to_ndarray(format="rgb24"))
            if i == last:
                return
