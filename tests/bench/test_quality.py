"""What is said of lossy settings."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from hyvideo_rt.bench.quality import Exam, Made, against, points, psnr, ssim
from hyvideo_rt.bench.quality_settings import ON_CPU, SETTINGS, Setting, in_8_bits
from hyvideo_rt.cli.model_choice import embedded_tiny
from hyvideo_rt.export.programs import ATTENTION
from hyvideo_rt.kernels.attention import joint_attention_fp8
from hyvideo_rt.models.linear import Fp8Linear, ScaledFp8Linear


def test_a_difference_has_an_interval() -> None:
    same = [{"all": i % 2 == 0} for i in range(100)]
    fewer = [{"all": i % 2 == 0 and i >= 20} for i in range(100)]
    assert points(same, same, "all").mean == 0
    lost = points(fewer, same, "all")
    assert lost.mean == pytest.approx(-0.1)
    assert -0.2 < lost.low < -0.1 < lost.high < -0.02


def test_psnr_and_ssim_of_known_errors() -> None:
    video = torch.rand(1, 3, 5, 32, 32, generator=torch.Generator().manual_seed(0))
    assert psnr([video], [video]) == 100
    assert psnr([video + 0.1], [video]) == pytest.approx(20, abs=0.01)
    assert ssim(video, video) == pytest.approx(1)
    assert ssim(video, 1 - video) < 0
    assert 0.5 < ssim(video, (video + 0.05 * torch.randn(video.shape)).clamp(0, 1)) < 0.999


def test_errors_of_latents_are_in_their_deviations() -> None:
    dense = Made(
        [3 * torch.randn(1, 16, 5, 8, 8)],
        [torch.rand(1, 3, 17, 64, 64)],
        [{"colour": True, "shape": True, "direction": True, "all": True}],
    )
    off = Made([dense.latents[0] + 0.5 * dense.latents[0].std()], dense.videos, dense.scores)
    row = against(off, dense)
    assert row["latent_error_mean"] == pytest.approx(0.5, abs=0.01)
    assert row["latent_error_max"] == pytest.approx(0.5, abs=0.01)
    assert row["psnr_db"] == 100
    assert row["points"]["all"]["mean"] == 0


def test_settings_are_what_they_are_called() -> None:
    checkpoint = embedded_tiny()
    loaded = {name: each.load(checkpoint) for name, each in SETTINGS.items()}
    kinds = {name: type(dit.get_submodule("single_blocks.0.linear1")) for name, dit in loaded.items()}
    assert kinds == {
        "fp32": torch.nn.Linear,
        "8-bit weights": Fp8Linear,
        "8-bit products": ScaledFp8Linear,
        "8-bit attention": torch.nn.Linear,
        "8-bit attention and output": torch.nn.Linear,
        "SageAttention (INT8)": torch.nn.Linear,
        "8-bit products and attention": ScaledFp8Linear,
    }
    attention = {name: dit.single_blocks[0].ops.joint_attention for name, dit in loaded.items()}  # type: ignore[union-attr]
    assert [name for name, each in attention.items() if each is joint_attention_fp8] == [
        "8-bit attention",
        "8-bit products and attention",
    ]
    assert attention["8-bit attention and output"] is ON_CPU["cudnn-fp8"].joint_attention
    assert attention["SageAttention (INT8)"] is ON_CPU["sage"].joint_attention
    assert loaded["fp32"].img_in.proj.weight.dtype == torch.float32
    one = in_8_bits("img_mlp.fc1").load(checkpoint)
    assert isinstance(one.get_submodule("double_blocks.0.img_mlp.fc1"), ScaledFp8Linear)
    assert not isinstance(one.get_submodule("double_blocks.0.img_mlp.fc2"), Fp8Linear)
    assert in_8_bits(ATTENTION).load(checkpoint).double_blocks[0].ops.joint_attention is joint_attention_fp8  # type: ignore[union-attr]


def test_a_setting_whose_attention_is_missing_has_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    gpu = torch.device("cuda")
    reasons = {name: setting.reason_against(gpu) for name, setting in SETTINGS.items()}
    assert [name for name, reason in reasons.items() if reason] == [
        "8-bit attention",
        "8-bit attention and output",
        "SageAttention (INT8)",
        "8-bit products and attention",
    ]
    assert reasons["8-bit attention"] == "it is not installed: pip install fa3-fwd"
    assert not any(setting.reason_against(torch.device("cpu")) for setting in SETTINGS.values())


def test_8_bits_change_a_video_and_keep_it_alike() -> None:
    exam = Exam.of(1, torch.device("cpu"))
    row = exam.row(SETTINGS["8-bit products"])
    assert 20 < row["psnr_db"] < 60
    assert 0.5 < row["ssim"] < 1
    assert exam.psnr_of(SETTINGS["8-bit products"], 1) == row["psnr_db"]
    assert exam.row(Setting())["psnr_db"] == 100, "bf16 is itself"


def test_calibrated_weights_are_nearer() -> None:
    """Than the nearest, on average: rounding may make of a single prompt another video, as a seed does."""
    exam = Exam.of(6, torch.device("cpu"))
    nearest, calibrated = (exam.row(SETTINGS["8-bit products"], calibrated=each) for each in (False, True))
    assert calibrated["psnr_db"] > nearest["psnr_db"] + 1


def test_a_setting_that_fails_leaves_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    exam = Exam.of(1, torch.device("cpu"))

    def fails(*tensors: Tensor | None) -> Tensor:
        raise RuntimeError("no kernel image\nis available")

    monkeypatch.setitem(ON_CPU, "sage", replace(ON_CPU["sage"], joint_attention=fails))
    assert exam.row(SETTINGS["SageAttention (INT8)"]) == {"reason": "RuntimeError: no kernel image"}
