"""The same pipeline on a CUDA GPU: golden numbers in fp32, offload, full width in bf16."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from conftest import Golden, assert_golden
from test_pipeline import build, params_of

from hyvideo_rt.buckets import Bucket
from hyvideo_rt.cli.model_choice import embedded_tiny
from hyvideo_rt.config import MODELS
from hyvideo_rt.kernels.rope import rope_table
from hyvideo_rt.models.dit import HunyuanVideoDiT
from hyvideo_rt.pipeline import Pipeline, Precision
from hyvideo_rt.sampling import SamplingParams, denoise, initial_noise, make_sigmas

pytestmark = pytest.mark.gpu
GOLDEN_ATOL = 2e-4  # fp32 on another device: other summation orders over four steps, TF32 off


@pytest.fixture(autouse=True)
def _no_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    """By default cuDNN rounds fp32 convolutions to 10 bits."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def on_gpu(pipeline: Pipeline, *, offload: bool) -> Pipeline:
    gpu = torch.device("cuda")
    if not offload:
        for module in (pipeline.dit, pipeline.vae, pipeline.text_encoder.llm, pipeline.text_encoder.clip):
            module.to(gpu)
    pipeline.device, pipeline.offload = gpu, offload
    return pipeline


@pytest.mark.parametrize("offload", [False, True])
@pytest.mark.parametrize("name", ["pipeline_embedded_a", "pipeline_cfg_a"])
@pytest.mark.usefixtures("rounded_as_golden")
@torch.inference_mode()
def test_golden_video(golden: Callable[[str], Golden], name: str, offload: bool) -> None:
    file = golden(name)
    pipeline = on_gpu(build(golden, name), offload=offload)
    params = params_of(file, file.metadata["seeds"][0])
    sigmas = make_sigmas(params)
    text, negative = pipeline.encode("prompt", params)
    with pipeline.visiting(pipeline.dit):
        predict = pipeline.predictor(text, negative, params, sigmas)
        latents = denoise(predict, initial_noise(params.bucket, params.seed).cuda(), sigmas)
    video = torch.cat(list(pipeline.decode(latents)), dim=2)
    assert_golden(video.cpu(), file.tensors["video"][:1], GOLDEN_ATOL)
    visitors = [pipeline.dit, pipeline.vae, pipeline.text_encoder.llm, pipeline.text_encoder.clip]
    assert {next(m.parameters()).device.type for m in visitors} == {"cpu" if offload else "cuda"}


@pytest.mark.parametrize("offload", [False, True])
def test_the_embedded_model_makes_the_video_it_makes_on_a_cpu(offload: bool) -> None:
    params = SamplingParams(Bucket(64, 64, 17), seed=3, num_inference_steps=4)
    exact = Precision(torch.float32, torch.float32, torch.float32, torch.float32)
    on_cpu = Pipeline.load(embedded_tiny(), torch.device("cpu"), exact).generate("a red circle", params)
    pipeline = Pipeline.load(embedded_tiny(), torch.device("cuda"), exact, offload=offload)
    on_gpu = pipeline.generate("a red circle", params)
    assert abs(on_gpu.frames.astype(int) - on_cpu.frames.astype(int)).max() <= 1  # of 255, truncated
    fast = Pipeline.load(embedded_tiny(), torch.device("cuda"), offload=offload).generate(
        "a red circle", params
    )
    assert fast.frames.std() > 1  # bf16 and fp16: finite and no flat picture


def test_full_width_in_bf16_is_close_to_fp32() -> None:
    """Two double and two single blocks in bf16, on random weights, against themselves in fp32."""
    config = replace(MODELS["HYVideo-T/2-cfgdistill"].dit, num_double_blocks=2, num_single_blocks=2)
    torch.manual_seed(0)
    with torch.device("cuda"), torch.inference_mode():
        dit = HunyuanVideoDiT(config).eval()
        bucket = Bucket(272, 480, 17)
        text, pooled = torch.randn(1, 40, config.text_dim), torch.randn(1, config.pooled_dim)
        t, guidance = torch.tensor([700.0]), torch.tensor([6016.0])
        latents = torch.randn(1, 16, *bucket.latent_shape)
        cos, sin = (table.cuda() for table in rope_table(bucket.grid, config.rope_dims, config.rope_theta))
        exact = dit(latents, dit.condition(t, text, pooled, guidance), (cos, sin))
        dit.bfloat16()
        got = dit(latents, dit.condition(t, text, pooled, guidance), (cos, sin))
    assert got.dtype == torch.float32
    error = (got - exact).norm() / exact.norm()
    assert error < 2e-2, error  # bf16 weights and activations: 2^-8 each, over four blocks
