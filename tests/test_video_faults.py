"""Whatever fails while a video is written, the target is as it was before and nothing else is left."""

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from clips import decode, noise_clip, smooth_clip, unchanged
from file_limits import file_size_limit

from hyvideo_rt.errors import InvalidRequest, OutputError
from hyvideo_rt.video import (
    Video,
    save_contact_sheet,
    save_mp4,
    save_png,
)

INTERRUPTED = 130


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A path where an earlier, finished file lies."""
    (tmp_path / "clip.mp4").write_bytes(b"the earlier file")
    return tmp_path / "clip.mp4"


def test_an_existing_file_is_replaced(target: Path) -> None:
    save_mp4(Video(smooth_clip()), target)
    assert len(decode(target)) == 17


def test_other_users_may_read_a_saved_file_as_the_umask_says(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        save_mp4(Video(smooth_clip(1)), tmp_path / "clip.mp4")
    finally:
        os.umask(before)
    assert (tmp_path / "clip.mp4").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("name", ["clip", "clip.avi", "clip.mp4.png"])
def test_a_wrong_name_is_refused_before_encoding(tmp_path: Path, name: str) -> None:
    with unchanged(tmp_path), pytest.raises(InvalidRequest, match=r"expected one that ends in \.mp4"):
        save_mp4(Video(smooth_clip()), tmp_path / "folder" / name)
    assert not (tmp_path / "folder").exists()


def test_a_folder_as_target_is_refused_before_encoding(tmp_path: Path) -> None:
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(OutputError, match="which is a folder"):
        save_mp4(Video(smooth_clip()), tmp_path / "folder.mp4")
    assert os.listdir(tmp_path) == ["folder.mp4"]


def test_a_file_where_a_folder_should_be(target: Path) -> None:
    with unchanged(target.parent), pytest.raises(OutputError, match="a folder on the way is a file"):
        save_mp4(Video(smooth_clip(1)), target / "clip.mp4")


def test_a_name_too_long_for_the_file_system(tmp_path: Path) -> None:
    with unchanged(tmp_path), pytest.raises(OutputError, match="choose a shorter name"):
        save_mp4(Video(smooth_clip(1)), tmp_path / ("a" * 300 + ".mp4"))


@contextmanager
def unprivileged() -> Iterator[None]:
    """Root may write anywhere: for the block, be nobody."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        if user == 0:
            os.seteuid(0)


@pytest.mark.parametrize("save", [save_mp4, save_png, save_contact_sheet])
def test_an_unwritable_folder(save: type) -> None:
    name = "picture.mp4" if save is save_mp4 else "picture.png"
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, name).write_bytes(b"the earlier file")
        os.chmod(folder, 0o555)
        denied = pytest.raises(OutputError, match=r"Permission denied.*\n  make the folder writable")
        with unchanged(Path(folder)), unprivileged(), denied as info:
            save(Video(smooth_clip(1)), Path(folder, name))
        assert isinstance(info.value.__cause__, PermissionError)
        os.chmod(folder, 0o700)


def test_writes_that_fail_at_any_point_of_an_mp4(tmp_path: Path, target: Path) -> None:
    video = Video(noise_clip(9))
    save_mp4(video, tmp_path / "whole.mp4")
    size = (tmp_path / "whole.mp4").stat().st_size
    for limit in (0, 100, size // 4, size // 2, size - 4096, size - 1):
        with unchanged(tmp_path), pytest.raises(OutputError, match="File too large"), file_size_limit(limit):
            save_mp4(video, target)
    with file_size_limit(size):
        save_mp4(video, target)
    assert len(decode(target)) == 9


@pytest.mark.parametrize("save", [save_png, save_contact_sheet])
def test_writes_that_fail_in_a_picture(tmp_path: Path, save: type) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(b"the earlier file")
    for limit in (0, 100, 8000):
        with unchanged(tmp_path), pytest.raises(OutputError, match="File too large"), file_size_limit(limit):
            save(Video(noise_clip(1)), path)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small file system needs root; the file size limit above stands in")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk(small_disk: Path) -> None:
    target = small_disk / "clip.mp4"
    save_mp4(Video(smooth_clip(5)), target)
    with (
        unchanged(small_disk),
        pytest.raises(OutputError, match=r"No space left.*\n  free some space") as info,
    ):
        save_mp4(Video(noise_clip(33)), target)
    assert isinstance(info.value.__cause__, OSError)
    assert info.value.__cause__.errno == errno.ENOSPC


def test_a_write_error_that_ffmpeg_did_not_report(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames that never reached the file are noticed by decoding it."""
    from hyvideo_rt import video as module

    encode = module._encode
    monkeypatch.setattr(module, "_encode", lambda video, path: encode(Video(video.frames[:-1]), path))
    with unchanged(target.parent), pytest.raises(OutputError, match=r"got 16 readable frames .* expected 17"):
        save_mp4(Video(smooth_clip()), target)


def test_an_encoder_error(target: Path) -> None:
    with unchanged(target.parent), pytest.raises(OutputError, match=r"while writing .*clip\.mp4"):
        save_mp4(Video(smooth_clip(1, 16, 2**15)), target)  # x264 stops at 16384 pixels


@pytest.mark.parametrize("grown_to_bytes", [0, 200_000], ids=["at once", "midway"])
def test_ctrl_c_while_encoding(target: Path, grown_to_bytes: int) -> None:
    """In a process of its own, as a person interrupts one."""
    child = multiprocessing.get_context("spawn").Process(target=_interrupted, args=(target, grown_to_bytes))
    with unchanged(target.parent):
        child.start()
        child.join(60)
    assert child.exitcode == INTERRUPTED


def _interrupted(target: Path, grown_to_bytes: int) -> None:
    def interrupt_once_the_temporary_file_has_grown() -> None:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            sizes = [path.stat().st_size for path in target.parent.glob(".*.mp4")]
            if any(size >= grown_to_bytes for size in sizes):
                return os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.001)

    video = Video(noise_clip(120, 256))
    threading.Thread(target=interrupt_once_the_temporary_file_has_grown).start()
    try:
        save_mp4(video, target)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
