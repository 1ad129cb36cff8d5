"""A DiT in 8 bits that was rounded for the activations of its own videos: `hyvideo-rt quantise`.

Prompts are denoised by the full weights while every linear layer of the blocks adds up what it is given; then
`weights.rounding` rounds each for that. The result is a DiT like the original's in 8 bits, but with a scale
per output channel: `--dit-weight FOLDER --use-fp8` loads it.
"""

import contextlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from hyvideo_rt.errors import InvalidRequest
from hyvideo_rt.models.dit import HunyuanVideoDiT
from hyvideo_rt.models.linear import Fp8Linear, linear_names
from hyvideo_rt.pipeline import Pipeline
from hyvideo_rt.sampling import SamplingParams, denoise, initial_noise, make_sigmas
from hyvideo_rt.weights.checkpoint_files import ORIGINAL_DIT
from hyvideo_rt.weights.convert import new_folder
from hyvideo_rt.weights.model_configs import dit_json
from hyvideo_rt.weights.rounding import round_for_inputs
from hyvideo_rt.weights.safetensors_files import write_safetensors
from hyvideo_rt.weights.tensor_files import TensorSpec

MOMENTS_BYTES = 16 << 30  # at a time; the published DiT's are 67 GB, so its prompts are denoised five times
Progress = Callable[[int, int], None]  # videos and layers done, and in all


def quantise(
    pipeline: Pipeline,
    prompts: Sequence[str],
    params: SamplingParams,
    target: Path,
    *,
    wide: Collection[str] = (),
    moments_bytes: int = MOMENTS_BYTES,
    progress: Progress | None = None,
) -> None:
    """Write the DiT to the folder `target`, which must not exist or be empty; it appears whole or not at all.

    Prompt i is denoised with the seed of `params` plus i. wide names layers that keep the pipeline's dtype,
    as do all outside of the blocks. Memory on the device beside the pipeline: moments_bytes, and a few times
    a layer's moments while it is rounded. Raises OutputError for what cannot be written, InvalidRequest for a
    pipeline of engines or with 8-bit weights.
    """
    if pipeline.engines or any(isinstance(layer, Fp8Linear) for layer in pipeline.dit.modules()):
        raise InvalidRequest("got engines or 8-bit weights; expected the networks themselves, in full")
    with new_folder(target) as staging:  # one that cannot be made is noticed before any video is
        tensors = rounded(pipeline, prompts, params, wide, moments_bytes, progress)
        write_dit(staging, pipeline.dit, tensors)


def rounded(
    pipeline: Pipeline,
    prompts: Sequence[str],
    params: SamplingParams,
    wide: Collection[str],
    moments_bytes: int,
    progress: Progress | None,
) -> dict[str, Tensor]:
    """E4M3 weights and their scales, by the names they have in a DiT, on the host."""
    found: dict[str, Tensor] = {}
    layers = narrow_layers(pipeline.dit, wide)
    groups = list(grouped(layers, moments_bytes))
    done, total = 0, len(groups) * len(prompts) + len(layers)

    def step() -> None:
        nonlocal done
        done += 1
        if progress:
            progress(done, total)

    for group in groups:
        with watching(group, pipeline.device) as moments:
            for i, prompt in enumerate(prompts):
                run(pipeline, prompt, replace(params, seed=params.seed + i))
                step()
        for name, layer in group.items():
            weight = layer.weight.detach().to(pipeline.device)
            values, scale = round_for_inputs(weight, moments.pop(name))
            found |= {f"{name}.weight": values.cpu(), f"{name}.scale": scale.cpu()}
            step()
    return found


def narrow_layers(dit: HunyuanVideoDiT, wide: Collection[str]) -> dict[str, nn.Linear]:
    """Those that `load_dit` has in 8 bits, by their names in the DiT."""
    return {
        f"{kind}.{i}.{name}": layer
        for kind, blocks in (("double_blocks", dit.double_blocks), ("single_blocks", dit.single_blocks))
        for i, block in enumerate(blocks)
        for name in linear_names(block)
        if name not in wide and isinstance(layer := block.get_submodule(name), nn.Linear)
    }


def grouped(layers: Mapping[str, nn.Linear], moments_bytes: int) -> Iterator[dict[str, nn.Linear]]:
    """As many at a time as have room for their moments, one at least."""
    group: dict[str, nn.Linear] = {}
    used = 0
    for name, layer in layers.items():
        size = 4 * layer.in_features**2
        if group and used + size > moments_bytes:
            yield group
            group, used = {}, 0
        group[name] = layer
        used += size
    if group:
        yield group


@contextlib.contextmanager
def watching(layers: Mapping[str, nn.Linear], device: torch.device) -> Iterator[dict[str, Tensor]]:
    """Inside, the sums of ``x x^T``, fp32, of what each layer is given; of one that is given nothing, zeros.

    A mean would differ by a factor, which rounding does not notice.
    """
    sums = {name: torch.zeros(2 * (layer.in_features,), device=device) for name, layer in layers.items()}

    def watch(name: str) -> Callable[[nn.Module, tuple[Tensor]], None]:
        def add(_: nn.Module, inputs: tuple[Tensor]) -> None:
            rows = inputs[0].detach().flatten(0, -2).float()
            sums[name].addmm_(rows.t(), rows)

        return add

    hooks = [layer.register_forward_pre_hook(watch(name)) for name, layer in layers.items()]
    try:
        yield sums
    finally:
        for hook in hooks:
            hook.remove()


@torch.inference_mode()
def run(pipeline: Pipeline, prompt: str, params: SamplingParams) -> None:
    """All steps of a video that nobody sees."""
    sigmas = make_sigmas(params)
    text, negative = pipeline.encode(prompt, params)
    with pipeline.visiting(pipeline.dit):
        predict = pipeline.predictor(text, negative, params, sigmas)
        noise = initial_noise(params.bucket, params.seed, pipeline.dit.config.in_channels)
        denoise(predict, noise.to(pipeline.device), sigmas)


def write_dit(folder: Path, dit: HunyuanVideoDiT, narrow: Mapping[str, Tensor]) -> None:
    """The DiT with these tensors in place of its own, by the original's names, and its config beside it."""
    tensors = {**dit.state_dict(), **narrow}
    names = sorted(
        tensors, key=lambda name: -tensors[name].dtype.itemsize
    )  # each at a multiple of its own size
    specs = {name: TensorSpec(tuple(tensors[name].shape), tensors[name].dtype) for name in names}
    (folder / "config.json").write_text(json.dumps(dit_json(dit.config, "original"), indent=2) + "\n")
    values = (tensors[name].detach().cpu() for name in names)
    write_safetensors(folder / ORIGINAL_DIT.name, specs, values, {"format": "pt"})
