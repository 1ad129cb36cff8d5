"""What is measured: the embedded model on a CPU, the published one with random weights on a GPU, and both
again with other operators or from engines, always on the same weights.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from hyvideo_rt.bench import work
from hyvideo_rt.bench.building import MakeEngines, built
from hyvideo_rt.buckets import Bucket
from hyvideo_rt.cli.engine_choice import target_for
from hyvideo_rt.cli.model_choice import embedded_tiny
from hyvideo_rt.config import MODELS, ModelConfig
from hyvideo_rt.engine_set import specs_of
from hyvideo_rt.kernels.ops import Ops
from hyvideo_rt.kernels.rope import rope_table
from hyvideo_rt.models.dit import Blocks, HunyuanVideoDiT
from hyvideo_rt.models.linear import linear_names
from hyvideo_rt.models.vae import CausalVAE, lay_out
from hyvideo_rt.pipeline import Pipeline, Precision
from hyvideo_rt.sampling import SamplingParams
from hyvideo_rt.weights.checkpoint import empty_dit
from hyvideo_rt.weights.loading import quantise_e4m3

CPU = torch.device("cpu")
PUBLISHED = "HYVideo-T/2-cfgdistill"
TEXT_TOKENS = {"cpu": 20, "cuda": 256}
Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Networks:
    """The two that engines replace, in the device's default precision, with the reference operators."""

    config: ModelConfig
    dit: HunyuanVideoDiT
    vae: CausalVAE
    device: torch.device

    @property
    def weights(self) -> str:
        return "tiny" if self.device.type == "cpu" else "random"

    @property
    def dtype(self) -> torch.dtype:
        return self.dit.img_in.proj.weight.dtype


@dataclass(frozen=True)
class StepInputs:
    """Of one evaluation of the DiT, in the dtype that the network takes: random latents and text.

    latents [1, 16, T, H, W] fp32, text [1, L, text_dim], pooled [1, pooled_dim], t and guidance [1].
    """

    latents: Tensor
    text: Tensor
    pooled: Tensor
    t: Tensor
    guidance: Tensor
    rope: tuple[Tensor, Tensor]


def embedded() -> Networks:
    checkpoint = embedded_tiny()
    dit, vae = checkpoint.load_dit(CPU, torch.float32), checkpoint.load_vae(CPU, torch.float32)
    return Networks(checkpoint.config, dit, vae, CPU)


def embedded_flops(prompt: str, params: SamplingParams) -> dict[str, int]:
    """Of one video of the embedded model, by stage."""
    pipeline = Pipeline.load(embedded_tiny(), CPU)
    return work.request_flops(MODELS["tiny"], pipeline.encode(prompt, params)[0], params)


def published() -> Networks:
    config, device = MODELS[PUBLISHED], torch.device("cuda")
    precision = Precision.default(device)
    dit = random_module(lambda: HunyuanVideoDiT(config.dit), precision.dit, device)
    vae = random_module(lambda: CausalVAE(config.vae), precision.vae, device)
    return Networks(config, dit, vae, device)


def random_module(build: Callable[[], Network], dtype: torch.dtype, device: torch.device) -> Network:
    """On the device at once; weights keep the variance of their inputs, so activations stay finite."""
    with torch.device("meta"):
        module = build()
    module = module.to(dtype).to_empty(device=device).eval().requires_grad_(False)
    generator = torch.Generator(device).manual_seed(0)
    for name, parameter in module.named_parameters():
        if parameter.ndim > 1:
            parameter.normal_(std=(parameter[0].numel()) ** -0.5, generator=generator)
        else:
            parameter.fill_(1.0 if name.endswith("weight") else 0.0)
    return module


def dit_with(networks: Networks, ops: Ops) -> HunyuanVideoDiT:
    """The same weights, not copied, under other operators."""
    dit = empty_dit(networks.config.dit, ops, fp8=False)
    dit.load_state_dict(networks.dit.state_dict(), assign=True)
    return dit.eval()


def weights_in_8_bits(networks: Networks) -> dict[str, Tensor]:
    """All of the DiT's, those of the blocks' linear layers in E4M3 with their scales."""
    weights, dit = networks.dit.state_dict(), networks.dit
    for kind, blocks in (("double_blocks", dit.double_blocks), ("single_blocks", dit.single_blocks)):
        for i, block in enumerate(blocks):
            for key in (f"{kind}.{i}.{name}" for name in linear_names(block)):
                weights[f"{key}.weight"], weights[f"{key}.scale"] = quantise_e4m3(weights[f"{key}.weight"])
    return weights


def dit_in_8_bits(networks: Networks, weights: dict[str, Tensor], ops: Ops) -> HunyuanVideoDiT:
    """These weights, not copied, multiplied in 8 bits."""
    dit = empty_dit(networks.config.dit, ops, fp8=True, fp8_products=True)
    dit.load_state_dict(weights, assign=True)
    return dit.eval()


def vae_with(networks: Networks, ops: Ops) -> CausalVAE:
    """A copy where the operators want another memory format."""
    with torch.device("meta"):
        vae = CausalVAE(networks.config.vae, ops)
    vae.load_state_dict(networks.vae.state_dict(), assign=True)
    return lay_out(vae.eval())


def from_store(config: ModelConfig, bucket: Bucket, folder: Path) -> MakeEngines:
    """Inductor's engines of the CPU for a size: those in the folder, or new ones."""
    target = target_for("inductor", Precision.default(CPU), CPU)
    return built(config, specs_of(config, bucket, target), target, CPU, folder)


def step_inputs(networks: Networks, bucket: Bucket) -> StepInputs:
    config, device, dtype = networks.config.dit, networks.device, networks.dtype
    generator = torch.Generator(device).manual_seed(0)
    random = functools.partial(torch.randn, generator=generator, device=device)
    cos, sin = rope_table(bucket.grid, config.rope_dims, config.rope_theta)
    return StepInputs(
        random((1, config.in_channels, *bucket.latent_shape)),
        random((1, TEXT_TOKENS[device.type], config.text_dim)).to(dtype),
        random((1, config.pooled_dim)).to(dtype),
        torch.tensor([700.0], device=device),
        torch.tensor([6000.0], device=device),
        (cos.to(device), sin.to(device)),
    )


def step(dit: HunyuanVideoDiT, inputs: StepInputs, blocks: Blocks | None = None) -> Callable[[], Tensor]:
    """One evaluation; what is computed once per request is done before."""
    dtype = dit.img_in.proj.weight.dtype
    conditioning = dit.condition(inputs.t, inputs.text.to(dtype), inputs.pooled.to(dtype), inputs.guidance)
    return torch.inference_mode()(lambda: dit(inputs.latents, conditioning, inputs.rope, blocks))
