"""`quantise`: a DiT in 8 bits, rounded for its own videos, written whole or not at all."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from hyvideo_rt.buckets import Bucket
from hyvideo_rt.calibration import grouped, narrow_layers, quantise
from hyvideo_rt.cli.main import main
from hyvideo_rt.cli.model_choice import embedded_tiny
from hyvideo_rt.errors import InvalidRequest, OutputError
from hyvideo_rt.kernels.fp8 import E4M3
from hyvideo_rt.models.dit import HunyuanVideoDiT
from hyvideo_rt.pipeline import Pipeline, Precision
from hyvideo_rt.sampling import SamplingParams, initial_noise, make_sigmas

CPU, PARAMS = torch.device("cpu"), SamplingParams(Bucket(64, 64, 17), seed=0, num_inference_steps=8)
SEEN = [
    "a red circle moves right on a white background",
    "a small blue star stands still",
    "the orange triangle goes down on a grey background",
    "a large purple square moves up and left",
]
OTHERS = [
    "a green square moves up on a white background",
    "a yellow triangle moves left on a blue background",
    "a white star moves down on a black background",
]


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return Pipeline.load(embedded_tiny(), CPU)


@pytest.fixture(scope="module")
def folder(pipeline: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("dit") / "narrow"
    seen: list[tuple[int, int]] = []
    quantise(pipeline, SEEN, PARAMS, target, progress=lambda done, total: seen.append((done, total)))
    total = len(SEEN) + len(narrow_layers(pipeline.dit, ()))
    assert seen == [(i, total) for i in range(1, total + 1)]
    return target


@torch.inference_mode()
def velocities(pipeline: Pipeline, dit: HunyuanVideoDiT) -> Tensor:
    """The first step's, of prompts that calibrated nothing."""
    other = Pipeline(dit, pipeline.vae, pipeline.text_encoder, device=CPU)
    found = []
    for seed, prompt in enumerate(OTHERS, 100):
        text, negative = other.encode(prompt, PARAMS)
        predict = other.predictor(text, negative, PARAMS, make_sigmas(PARAMS))
        found.append(predict(initial_noise(PARAMS.bucket, seed), 0))
    return torch.cat(found)


def test_it_errs_less_than_the_nearest_weights(pipeline: Pipeline, folder: Path) -> None:
    narrow = embedded_tiny(folder).load_dit(CPU, torch.float32, fp8=True)
    nearest = embedded_tiny().load_dit(CPU, torch.float32, fp8=True)
    exact = velocities(pipeline, pipeline.dit)
    mine, theirs = ((velocities(pipeline, dit) - exact).norm() / exact.norm() for dit in (narrow, nearest))
    assert 0 < mine < 0.8 * theirs, (mine, theirs)


def test_what_is_in_the_folder(pipeline: Pipeline, folder: Path) -> None:
    """All that `load_dit` has in 8 bits is; everything else is as it was."""
    assert {path.suffix for path in folder.iterdir()} == {".json", ".safetensors"}
    stored = load_file(next(folder.glob("*.safetensors")))
    asked = embedded_tiny().load_dit(CPU, torch.float32, fp8=True).state_dict()
    assert {name: t.dtype for name, t in stored.items()} == {name: t.dtype for name, t in asked.items()}
    loaded = embedded_tiny(folder).load_dit(CPU, torch.float32, fp8=True).state_dict()
    full = pipeline.dit.state_dict()
    for name, tensor in stored.items():
        assert torch.equal(loaded[name].float(), tensor.float()), name
        if tensor.dtype != E4M3 and not name.endswith(".scale"):
            assert torch.equal(tensor, full[name]), name


def test_in_groups_it_is_the_same(pipeline: Pipeline, folder: Path, tmp_path: Path) -> None:
    layers = narrow_layers(pipeline.dit, ())
    largest = max(4 * layer.in_features**2 for layer in layers.values())
    groups = list(grouped(layers, largest))
    assert 1 < len(groups) < len(layers)
    assert [name for group in groups for name in group] == list(layers)
    quantise(pipeline, SEEN, PARAMS, tmp_path / "again", moments_bytes=largest)
    one, other = (load_file(next(f.glob("*.safetensors"))) for f in (folder, tmp_path / "again"))
    assert all(torch.equal(one[name].float(), other[name].float()) for name in one)


def test_wide_layers_stay(pipeline: Pipeline, tmp_path: Path) -> None:
    quantise(pipeline, SEEN[:1], PARAMS, tmp_path / "dit", wide=("linear1",))
    stored = load_file(next((tmp_path / "dit").glob("*.safetensors")))
    assert stored["single_blocks.0.linear1.weight"].dtype == torch.float32
    assert stored["single_blocks.0.linear2.weight"].dtype == E4M3
    dit = embedded_tiny(tmp_path / "dit").load_dit(CPU, torch.float32, fp8=True, wide=("linear1",))
    assert velocities(pipeline, dit).isfinite().all()


def test_nothing_is_left_of_what_was_cut(pipeline: Pipeline, tmp_path: Path) -> None:
    def cut(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quantise(pipeline, SEEN, PARAMS, tmp_path / "dit", progress=cut)
    assert list(tmp_path.iterdir()) == []
    assert not any(layer._forward_pre_hooks for layer in narrow_layers(pipeline.dit, ()).values())


def test_a_folder_with_something_in_it_is_left_alone(pipeline: Pipeline, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    with pytest.raises(OutputError, match="exists and is not an empty folder"):
        quantise(pipeline, SEEN, PARAMS, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_rounded_weights_are_not_rounded_again(tmp_path: Path) -> None:
    narrow = Pipeline.load(embedded_tiny(), CPU, Precision(*(torch.float32,) * 4, fp8=True))
    with pytest.raises(InvalidRequest, match="expected the networks themselves, in full"):
        quantise(narrow, SEEN, PARAMS, tmp_path / "dit")


def test_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What it makes is found by --dit-weight, and refused where full weights are wanted."""
    prompts, dit = tmp_path / "prompts.txt", tmp_path / "dit"
    prompts.write_text("\n".join(SEEN))
    command = ["quantise", str(dit), "--prompts-file", str(prompts), "--model", "tiny"]
    assert main([*command, "--infer-steps", "2"]) == 0
    assert capsys.readouterr().out.strip() == str(dit)
    video = [
        "generate",
        "--model",
        "tiny",
        "--prompt",
        OTHERS[0],
        "--seed",
        "1",
        "--infer-steps",
        "2",
        "--json",
    ]
    video += ["--save-path", str(tmp_path / "videos"), "--use-fp8"]
    assert main(video) == 0
    nearest = capsys.readouterr().out
    assert main([*video, "--dit-weight", str(dit)]) == 0
    assert fingerprint(capsys.readouterr().out) != fingerprint(nearest)
    again = ["quantise", str(tmp_path / "more"), "--prompts-file", str(prompts), "--model", "tiny"]
    assert main([*again, "--dit-weight", str(dit)]) == 1
    assert "expected the full ones to round" in capsys.readouterr().err
    assert main([*again, "--use-fp8"]) == 2
    assert "rounding begins with the full weights" in capsys.readouterr().err
    assert not (tmp_path / "more").exists()


def fingerprint(line: str) -> str:
    return line.partition('"fingerprint": "')[2].partition('"')[0]
