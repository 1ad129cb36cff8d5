"""Videos decode back to their pictures, keep their metadata and get safe names."""

import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from clips import METADATA, NOON, decode, psnr, rgb, smooth_clip, unchanged
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hyvideo_rt.errors import InvalidRequest, NumericalError
from hyvideo_rt.video import (
    Frames,
    Video,
    check_not_flat,
    output_path,
    read_metadata,
    save_contact_sheet,
    save_mp4,
    save_png,
    to_uint8,
)

# --- pictures -----------------------------------------------------------------------------------------


def test_to_uint8_truncates_clamps_and_moves_channels_last() -> None:
    chunk = torch.tensor([0.0, 0.9999, 1.0, -0.2, 1.7, 0.5]).reshape(3, 1, 1, 2)
    assert to_uint8(chunk).tolist() == [[[[0, 255, 255], [254, 0, 127]]]]


def test_to_uint8_equals_the_originals_numpy_formula() -> None:
    chunk = torch.randn(3, 5, 16, 16, generator=torch.Generator().manual_seed(0)) / 2 + 0.5
    original = (torch.clamp(chunk, 0, 1) * 255).numpy().astype(np.uint8).transpose(1, 2, 3, 0)
    assert np.array_equal(to_uint8(chunk).numpy(), original)


def test_to_uint8_of_half_precision_multiplies_in_fp32() -> None:
    chunk = torch.linspace(0, 1, 3 * 256).reshape(3, 1, 16, 16).to(torch.bfloat16)
    assert torch.equal(to_uint8(chunk), to_uint8(chunk.float()))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_to_uint8_refuses_what_is_not_finite(value: float) -> None:
    chunk = torch.full((3, 2, 16, 16), 0.5)
    chunk[1, 1, 3, 4] = value
    with pytest.raises(NumericalError, match=r"got 1 NaN or infinite values of 1536.*\n  try"):
        to_uint8(chunk)


@pytest.mark.parametrize(("spread", "flat"), [(0, True), (2, True), (3, False)])
def test_only_a_picture_without_any_contrast_is_flat(spread: int, flat: bool) -> None:
    frames = np.full((5, 16, 16, 3), 7, dtype=np.uint8)
    frames[3, 4, 5, 1] += spread
    if flat:
        with pytest.raises(NumericalError, match=rf"lies in 7\.\.{7 + spread} of 0\.\.255"):
            check_not_flat(frames)
    else:
        check_not_flat(frames)


@pytest.mark.parametrize(
    "frames",
    [np.zeros((1, 16, 16, 3)), np.zeros((16, 16, 3), np.uint8), np.zeros((0, 16, 16, 3), np.uint8)],
)
def test_a_video_of_anything_but_uint8_pictures_is_refused(frames: Frames) -> None:
    with pytest.raises(InvalidRequest, match=r"expected uint8 \[F, H, W, 3\]"):
        Video(frames)


# --- mp4 ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(17, 64, 96), (33, 96, 64), (1, 16, 16), (5, 544, 960)])
def test_an_mp4_decodes_back_to_its_pictures(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    clip = smooth_clip(*shape)
    path = tmp_path / "new" / "folder" / "clip.mp4"
    save_mp4(Video(clip), path)
    decoded = decode(path)
    assert decoded.shape == clip.shape
    assert psnr(decoded, clip) > 35
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.average_rate == 24
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert stream.codec_context.name == "h264"
    assert os.listdir(path.parent) == ["clip.mp4"]


def test_frames_straight_from_to_uint8_are_saved_in_order(tmp_path: Path) -> None:
    clip = smooth_clip()
    chunk = torch.from_numpy(clip).permute(3, 0, 1, 2) / 255 + 0.001  # clear of the truncation's edge
    save_mp4(Video(to_uint8(chunk).numpy()), tmp_path / "clip.mp4")
    assert psnr(decode(tmp_path / "clip.mp4"), clip) > 35


def test_a_strided_view_is_saved_as_it_looks(tmp_path: Path) -> None:
    flipped = smooth_clip()[:, ::-1, ::-1]
    save_mp4(Video(flipped), tmp_path / "view.mp4")
    assert psnr(decode(tmp_path / "view.mp4"), flipped) > 35


def test_the_encoder_does_nothing_that_varies_between_runs(tmp_path: Path) -> None:
    """With its macroblock tree, 8 of 80 runs of one `generate` wrote other bits; x264 notes its settings."""
    save_mp4(Video(smooth_clip(17, 64, 64), 24, METADATA), tmp_path / "a.mp4")
    assert b"mbtree=0" in (tmp_path / "a.mp4").read_bytes()


@pytest.mark.parametrize(
    ("colour", "yuv"),  # BT.709, limited range: 16 + 219 * Y', 128 + 224 * C
    [
        ((255, 0, 0), (63, 102, 240)),
        ((0, 255, 0), (173, 42, 26)),
        ((0, 0, 255), (32, 240, 118)),
        ((255, 255, 255), (235, 128, 128)),
        ((0, 0, 0), (16, 128, 128)),
    ],
)
def test_colours_are_bt709_in_the_samples_and_in_the_tags(
    tmp_path: Path, colour: tuple[int, int, int], yuv: tuple[int, int, int]
) -> None:
    clip = np.broadcast_to(np.array(colour, dtype=np.uint8), (5, 64, 64, 3)).copy()
    save_mp4(Video(clip), tmp_path / "colour.mp4")
    with av.open(str(tmp_path / "colour.mp4")) as container:
        context = container.streams.video[0].codec_context
        assert (context.colorspace, context.color_primaries, context.color_trc) == (1, 1, 1)
        assert context.color_range == 1
        frame = next(container.decode(video=0))
    samples = [np.frombuffer(bytes(plane), np.uint8)[0] for plane in frame.planes]
    assert np.abs(np.array(samples, int) - yuv).max() <= 1
    assert np.abs(rgb(frame).astype(int) - colour).max() <= 3


def test_players_can_start_before_the_whole_file_is_there(tmp_path: Path) -> None:
    save_mp4(Video(smooth_clip()), tmp_path / "clip.mp4")
    data = (tmp_path / "clip.mp4").read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")


def test_odd_sizes_are_refused_rather_than_rescaled(tmp_path: Path) -> None:
    with unchanged(tmp_path), pytest.raises(InvalidRequest, match="got frames of 15x16"):
        save_mp4(Video(np.zeros((1, 15, 16, 3), np.uint8)), tmp_path / "odd.mp4")


# --- metadata -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "prompt",
    ["", "A cat", METADATA["prompt"], "word " * 10_000, "猫" * 10_000, "nul \0 in it", "half \ud83d emoji"],
)
@pytest.mark.parametrize("suffix", [".mp4", ".png"])
def test_metadata_comes_back_exactly(tmp_path: Path, prompt: str, suffix: str) -> None:
    metadata = {**METADATA, "prompt": prompt}
    save = save_mp4 if suffix == ".mp4" else save_png
    save(Video(smooth_clip(1), metadata=metadata), tmp_path / f"clip{suffix}")
    assert read_metadata(tmp_path / f"clip{suffix}") == metadata


def test_the_title_is_the_prompt_that_other_programs_show(tmp_path: Path) -> None:
    video = Video(smooth_clip(1), metadata=METADATA)
    save_mp4(video, tmp_path / "clip.mp4")
    save_png(video, tmp_path / "clip.png")
    with av.open(str(tmp_path / "clip.mp4")) as container:
        assert container.metadata["title"] == "猫が歩く, кот, 🐈 second line"
    with Image.open(tmp_path / "clip.png") as image:
        assert image.info["Title"] == "猫が歩く, кот, 🐈 second line"


@pytest.mark.parametrize("suffix", [".mp4", ".png"])
@pytest.mark.parametrize("content", [b"", b"not a video", None])
def test_files_that_are_not_ours_have_no_metadata(tmp_path: Path, suffix: str, content: bytes | None) -> None:
    path = tmp_path / f"foreign{suffix}"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InvalidRequest, match="without readable metadata"):
        read_metadata(path)


def test_a_picture_of_another_program_has_no_metadata(tmp_path: Path) -> None:
    Image.new("RGB", (16, 16)).save(tmp_path / "foreign.png")
    with pytest.raises(InvalidRequest, match="without readable metadata"):
        read_metadata(tmp_path / "foreign.png")


# --- png and contact sheet ----------------------------------------------------------------------------


def test_a_png_is_the_exact_picture(tmp_path: Path) -> None:
    clip = smooth_clip(1)
    save_png(Video(clip), tmp_path / "picture.png")
    with Image.open(tmp_path / "picture.png") as image:
        assert np.array_equal(np.asarray(image), clip[0])


def test_a_png_of_many_frames_is_refused(tmp_path: Path) -> None:
    with unchanged(tmp_path), pytest.raises(InvalidRequest, match="got a video of 17 frames"):
        save_png(Video(smooth_clip()), tmp_path / "picture.png")


def test_a_contact_sheet_shows_evenly_spaced_frames(tmp_path: Path) -> None:
    shades = np.arange(17, dtype=np.uint8) * 15
    clip = np.broadcast_to(shades[:, None, None, None], (17, 32, 48, 3)).copy()
    save_contact_sheet(Video(clip), tmp_path / "sheet.png", columns=5)
    with Image.open(tmp_path / "sheet.png") as image:
        sheet = np.asarray(image)
    assert sheet.shape == (32 + 4, 5 * 52 - 4, 3)
    assert sheet[16, 24::52, 0].tolist() == shades[[0, 4, 8, 12, 16]].tolist()


def test_a_contact_sheet_has_a_captioned_row_for_each_video(tmp_path: Path) -> None:
    prompts = ["A cat", "猫が歩く 🐈 \ud83d\n" * 50, ""]
    shades = [50, 100, 150]
    videos = [
        Video(np.full((5, 32, 48, 3), shade, dtype=np.uint8), metadata={"prompt": prompt})
        for shade, prompt in zip(shades, prompts, strict=True)
    ]
    save_contact_sheet(videos, tmp_path / "sheet.png", columns=3)
    with Image.open(tmp_path / "sheet.png") as image:
        sheet = np.asarray(image)[..., 0]
    assert [int(shade) for shade in dict.fromkeys(sheet[:, 60]) if shade in shades] == shades
    assert sheet.shape == (3 * (32 + 4) + 2 * 16, 3 * 52 - 4)
    assert sheet[:16].min() < 128 < sheet[14:16].min()  # dark ink on a white strip
    assert sheet[52:68].min() < 128


def test_large_frames_become_thumbnails_of_the_same_shape(tmp_path: Path) -> None:
    save_contact_sheet(Video(smooth_clip(2, 544, 960)), tmp_path / "sheet.jpg")
    with Image.open(tmp_path / "sheet.jpg") as image:
        assert (image.format, image.size) == ("JPEG", (2 * 324 - 4, 181 + 4))


def test_an_empty_contact_sheet_is_refused(tmp_path: Path) -> None:
    for videos, columns in (([], 8), ([Video(smooth_clip())], 0)):
        with unchanged(tmp_path), pytest.raises(InvalidRequest, match="expected at least one of each"):
            save_contact_sheet(videos, tmp_path / "sheet.png", columns)


# --- names --------------------------------------------------------------------------------------------


def test_files_are_named_as_the_original_names_them(tmp_path: Path) -> None:
    path = output_path(tmp_path, "A cat/dog " + "x" * 200, 42, ".mp4", NOON)
    assert path == tmp_path / f"2025-01-31-12:00:00_seed42_A catdog {'x' * 90}.mp4"


def test_an_existing_name_is_never_given_again(tmp_path: Path) -> None:
    names = []
    for _ in range(3):
        path = output_path(tmp_path, "cat", 1, ".png", NOON)
        path.touch()
        names.append(path.name)
    assert names == [f"2025-01-31-12:00:00_seed1_cat{end}" for end in (".png", "_1.png", "_2.png")]


def test_a_dangling_link_is_not_overwritten(tmp_path: Path) -> None:
    first = output_path(tmp_path, "cat", 1, ".mp4", NOON)
    first.symlink_to(tmp_path / "nowhere")
    assert output_path(tmp_path, "cat", 1, ".mp4", NOON).name.endswith("cat_1.mp4")


@settings(deadline=None)
@given(prompt=st.text(), seed=st.integers(0, 2**64))
def test_any_prompt_makes_a_name_that_fits(prompt: str, seed: int) -> None:
    name = output_path(Path("nowhere"), prompt, seed, ".mp4", NOON).name
    assert len(name.encode()) <= 255
    assert "/" not in name
    assert min(name) >= " "


@pytest.mark.parametrize("character", ["猫", "🐈", "é"])
def test_long_names_are_cut_between_characters_and_can_be_created(tmp_path: Path, character: str) -> None:
    first = output_path(tmp_path, character * 200, 2**63, ".mp4", NOON)
    first.touch()
    second = output_path(tmp_path, character * 200, 2**63, ".mp4", NOON)
    second.touch()
    for path, end in ((first, ".mp4"), (second, "_1.mp4")):
        words = path.name.removeprefix(f"2025-01-31-12:00:00_seed{2**63}_").removesuffix(end)
        assert set(words) == {character}
        room = 255 - len(path.name.encode()) + len(words.encode())
        assert len(words) == min(100, room // len(character.encode()))


def test_a_prompt_with_control_characters_makes_a_plain_name(tmp_path: Path) -> None:
    path = output_path(tmp_path, "a\nb\0c\x1bd\u2028e\udc80f", 1, ".mp4", NOON)
    assert path.name == "2025-01-31-12:00:00_seed1_a b c d e f.mp4"
    path.touch()


def test_a_name_with_colons_is_saved_from_a_relative_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = output_path(Path(), "cat", 1, ".mp4", NOON)
    save_mp4(Video(smooth_clip(1), metadata=METADATA), path)
    assert read_metadata(path) == METADATA


def test_importing_the_module_imports_neither_encoder_nor_pillow() -> None:
    code = "import sys, hyvideo_rt.video; print({'av', 'PIL'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
