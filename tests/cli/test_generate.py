"""`hyvideo-rt generate` as a person runs it: real processes, the embedded model, real files."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from hyvideo_rt.cli.model_choice import embedded_tiny
from hyvideo_rt.config import MODELS
from hyvideo_rt.models.dit import HunyuanVideoDiT
from hyvideo_rt.models.linear import Fp8Linear
from hyvideo_rt.video import read_metadata
from hyvideo_rt.weights.convert import convert
from hyvideo_rt.weights.loading import quantise_e4m3

STEPS = ("--infer-steps", "2")


def start(*args: str, cwd: Path, **options: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "hyvideo_rt.cli.main", *args]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=cwd, **pipes, **options)  # type: ignore[call-overload, no-any-return]


def run(*args: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    process = start(*args, cwd=cwd)
    out, err = process.communicate(timeout=120)
    return subprocess.CompletedProcess(args, process.returncode, out, err)


def frames_of(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    with av.open(str(path)) as file:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)])


def test_a_prompt_becomes_an_mp4(tmp_path: Path) -> None:
    done = run("generate", "--prompt", "a red circle moves right", "--seed", "7", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    path = tmp_path / result["path"]
    assert path.parent == tmp_path / "results"
    assert "_seed7_a red circle moves right" in path.name
    frames = frames_of(path)
    assert frames.shape == (17, 64, 64, 3)
    assert frames.std() > 2
    metadata = read_metadata(path)
    assert metadata["prompt"] == "a red circle moves right"
    assert metadata["seed"] == 7
    assert metadata["num_inference_steps"] == 20
    assert len(str(metadata["fingerprint"])) == 64
    assert set(result["seconds"]) == {"encode", "denoise", "decode"}
    assert "embedded tiny model" in done.stderr


def test_a_seed_is_one_video_and_another_seed_another(tmp_path: Path) -> None:
    videos = []
    for seed in ("1", "1", "2"):
        done = run("generate", "--prompt", "x", "--seed", seed, *STEPS, "--json", cwd=tmp_path)
        videos.append(frames_of(tmp_path / json.loads(done.stdout)["path"]))
    assert np.array_equal(videos[0], videos[1])
    assert not np.array_equal(videos[0], videos[2])


def test_the_documented_command_of_the_original(tmp_path: Path) -> None:
    """With the program's name replaced and a size of the tiny model; flags without effect say so."""
    done = run(
        "generate",
        *("--video-size", "64", "96", "--video-length", "17", "--infer-steps", "2"),
        *("--prompt", "A cat walks on the grass, realistic style.", "--flow-reverse", "--use-cpu-offload"),
        *("--save-path", "./videos", "--save-path-suffix", "a", "--num-videos", "2", "--seed", "42"),
        *("--embedded-cfg-scale", "6.0", "--flow-shift", "7.0", "--cfg-scale", "1.0", "--batch-size", "1"),
        *("--latent-channels", "16", "--vae", "884-16c-hy", "--vae-tiling", "--text-len", "256"),
        *("--seed-type", "auto", "--reproduce", "--name-suffix", "z", "--ulysses_degree", "1"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    names = sorted(path.name for path in (tmp_path / "videos_a").iterdir())
    assert len(names) == 2
    assert ["_seed42_" in names[0], "_seed43_" in names[1]] == [True, True]
    for flag in ("--seed-type", "--reproduce", "--name-suffix"):
        assert done.stderr.count(f"{flag} has no effect") == 1


def test_one_frame_is_a_png(tmp_path: Path) -> None:
    done = run("generate", "--prompt", "猫 🐈", "--video-length", "1", *STEPS, "--json", cwd=tmp_path)
    path = tmp_path / json.loads(done.stdout)["path"]
    assert path.suffix == ".png"
    assert Image.open(path).size == (64, 64)
    assert read_metadata(path)["prompt"] == "猫 🐈"


def test_a_file_of_prompts_and_a_contact_sheet(tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a red circle\n\n# a comment\n一只猫 🐈\n", "utf-8")
    done = run(
        "generate",
        "--prompts-file",
        "prompts.txt",
        *STEPS,
        "--contact-sheet",
        "sheet.png",
        "--json",
        cwd=tmp_path,
    )
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert [result["prompt"] for result in results] == ["a red circle", "一只猫 🐈"]
    assert all((tmp_path / result["path"]).exists() for result in results)
    assert Image.open(tmp_path / "sheet.png").width >= 8 * 64


@pytest.mark.parametrize("prompt", ["", "   ", "{} {0} %s", "red " * 10_000])
def test_odd_prompts_are_served(tmp_path: Path, prompt: str) -> None:
    done = run("generate", "--prompt", prompt, *STEPS, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert read_metadata(tmp_path / json.loads(done.stdout)["path"])["prompt"] == prompt
    assert ("tokens too long" in done.stderr) == (len(prompt) > 1000)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--video-size", "63", "64"), "nearest valid size: 64x64x17"),
        (("--video-length", "16"), "nearest valid size: 64x64x17"),
        (("--video-size", "720", "1280", "--video-length", "129"), "no weights in ./ckpts"),
        (("--infer-steps", "0"), "got steps 0"),
        (("--flow-shift", "0"), "got flow shift 0.0"),
        (("--seed", "-1"), "got seed -1"),
        (("--num-videos", "0"), "got video count 0"),
        (("--text-encoder", "clipL"), "got --text-encoder clipL; expected llm"),
        (("--ulysses-degree", "8"), "runs on one GPU"),
        (("--preset", "1080p"), "presets: 540p-landscape"),
        (("--preset", "tiny-square", "--video-length", "5"), "one or the other"),
        (("--model-base", "nowhere"), "nowhere"),
        (("--model-base", "org/name"), "revision"),
        (("--device", "toaster"), "toaster"),
        (("--contact-sheet", "sheet.gif"), "ends in .png or .jpg"),
        (("--hidden-state-skip-layer", "4"), "got 4 skipped layers of the LLM, which has 4"),
        (("--hidden-state-skip-layer", "-1"), "got -1 skipped layers"),
        (("--text-len", "0"), "got a text length of 0"),
        (("--save-path", "file/below"), "file"),
    ],
)
def test_bad_input_is_refused_before_any_work(tmp_path: Path, args: tuple[str, ...], message: str) -> None:
    (tmp_path / "file").write_text("")
    done = run("generate", "--prompt", "x", *args, cwd=tmp_path)
    assert done.returncode in (1, 2)
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_leaves_nothing(tmp_path: Path, stop: signal.Signals) -> None:
    process = start("generate", "--prompt", "x", "--infer-steps", "100000", cwd=tmp_path)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("tiny_model"):
            break
    time.sleep(1.5)
    process.send_signal(stop)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert not list(tmp_path.rglob("*.mp4"))


def test_an_unwritable_folder_is_refused_at_once(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root writes anywhere; tests/test_video_faults.py covers it as another user")
    (tmp_path / "locked").mkdir(mode=0o500)
    done = run("generate", "--prompt", "x", "--save-path", "locked", cwd=tmp_path)
    assert done.returncode == 1
    assert "takes no new files" in done.stderr


def test_fp8_weights_change_the_video_a_little(tmp_path: Path) -> None:
    videos = []
    for flags in ((), ("--use-fp8",)):
        done = run("generate", "--prompt", "x", "--seed", "1", *STEPS, *flags, "--json", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        videos.append(frames_of(tmp_path / json.loads(done.stdout)["path"]).astype(int))
    difference = np.abs(videos[0] - videos[1]).mean()
    assert 0 < difference < 20


def test_the_originals_own_files_with_fp8_weights_and_a_prefixed_llm(tmp_path: Path) -> None:
    """`.pt` pickles of tensors, an fp8 pair and a causal LM's key names, as downloads have them."""
    base = tmp_path / "ckpts"
    convert(embedded_tiny(), base, "original")
    transformers, vae = (
        base / "hunyuan-video-t2v-720p" / "transformers",
        base / "hunyuan-video-t2v-720p" / "vae",
    )
    dit = load_file(transformers / "mp_rank_00_model_states.safetensors")
    linears = [name for name, m in fp8_modules() if isinstance(m, Fp8Linear)]
    scales = {}
    for name in linears:
        weight = dit[f"{name}.weight"]
        quantised, scales[name] = quantise_e4m3(weight.reshape(1, -1))  # one scale for all rows
        dit[f"{name}.weight"] = quantised.view_as(weight)
    torch.save({"module": dit}, transformers / "mp_rank_00_model_states_fp8.pt")
    torch.save(scales, transformers / "mp_rank_00_model_states_fp8_map.pt")
    (transformers / "mp_rank_00_model_states.safetensors").unlink()
    torch.save({"state_dict": load_file(vae / "pytorch_model.safetensors")}, vae / "pytorch_model.pt")
    (vae / "pytorch_model.safetensors").unlink()
    llm = base / "text_encoder" / "model.safetensors"
    prefixed = {f"model.{name}": tensor for name, tensor in load_file(llm).items()}
    save_file(prefixed | {"lm_head.weight": torch.ones(2, 2)}, llm)

    pair = "ckpts/hunyuan-video-t2v-720p/transformers/mp_rank_00_model_states_fp8.pt"
    videos = []
    for flags in (("--model", "tiny"), ("--dit-weight", pair)):
        args = ("generate", "--prompt", "x", "--seed", "1", *STEPS, "--use-fp8", *flags, "--json")
        done = run(*args, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        videos.append(frames_of(tmp_path / json.loads(done.stdout)["path"]))
    # Quantised here at load, each row with its own scale, or before, by the original's rule.
    difference = np.abs(videos[0].astype(float) - videos[1]).mean()
    assert 0 < difference < 12


def fp8_modules() -> Iterator[tuple[str, torch.nn.Module]]:
    with torch.device("meta"):
        dit = HunyuanVideoDiT(MODELS["tiny"].dit, block_linear=Fp8Linear)
    yield from dit.named_modules()
