"""The DiT against the original's golden tensors, intermediates included, and against diffusers."""

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import Golden, assert_golden
from golden_models import golden_dit
from torch import Tensor, nn

from hyvideo_rt.config import MODELS
from hyvideo_rt.models.dit import Conditioning, HunyuanVideoDiT
from hyvideo_rt.models.linear import Fp8Linear
from hyvideo_rt.weights.layouts import diffusers_from_original

ATOL = 1e-5  # of the golden tensors' README, unit-scale outputs in fp32
CASES = [("dit_a", 0), ("dit_a", 1), ("dit_a", 2), ("dit_b", 0), ("dit_b", 1)]


def run(dit: HunyuanVideoDiT, inputs: dict[str, Tensor]) -> Tensor:
    """The original's call: padded text with its mask, RoPE tables with every angle twice."""
    mask = inputs["text_mask"]
    conditioning = dit.condition(
        inputs["t"],
        inputs["text_states"],
        inputs["text_states_2"],
        inputs.get("guidance"),
        None if mask.all() else mask.sum(dim=1),
    )
    rope = inputs["freqs_cos"][:, ::2], inputs["freqs_sin"][:, ::2]
    out: Tensor = dit(inputs["x"], conditioning, rope)
    return out


def record(module: nn.Module, names: dict[str, str]) -> dict[str, Any]:
    """Outputs of submodules under the golden files' names, filled when the module runs."""
    outputs: dict[str, Any] = {}

    def keep(name: str, _module: nn.Module, _args: Any, output: Any) -> None:
        outputs[name] = output

    for name, path in names.items():
        module.get_submodule(path).register_forward_hook(functools.partial(keep, name))
    return outputs


def intermediates(dit: HunyuanVideoDiT) -> dict[str, str]:
    names = {name: name for name in ("time_in", "vector_in", "img_in", "txt_in", "final_layer")}
    if dit.guidance_in is not None:
        names["guidance_in"] = "guidance_in"
    for part in ("t_embedder", "c_embedder", "input_embedder"):
        names[f"txt_in.{part}"] = f"txt_in.{part}"
    for i in range(2):
        names[f"txt_in.block{i}"] = f"txt_in.individual_token_refiner.blocks.{i}"
    names |= {f"double{i}": f"double_blocks.{i}" for i in range(len(dit.double_blocks))}
    names |= {f"single{i}": f"single_blocks.{i}" for i in range(len(dit.single_blocks))}
    return names


@pytest.mark.parametrize(("name", "case"), CASES)
@pytest.mark.usefixtures("rounded_as_golden")
@torch.no_grad()
def test_every_golden_tensor(golden: Callable[[str], Golden], name: str, case: int) -> None:
    file = golden(name)
    dit = golden_dit(file)
    inputs = file.group(f"c{case}.in")
    got = record(dit, intermediates(dit))
    got["x_out"] = run(dit, inputs)
    got["vec"] = sum(got[key] for key in ("time_in", "vector_in", "guidance_in") if key in got)
    for key in [key for key in got if key.startswith("double")]:
        got[f"{key}.img"], got[f"{key}.txt"] = got.pop(key)

    mask = inputs["text_mask"].bool()
    for key, expected in file.group(f"c{case}.out").items():
        valid: Tensor | slice = slice(None)
        if key.endswith(".txt") or key.startswith(("txt_in.block", "txt_in.input")) or key == "txt_in":
            valid = mask
        elif key.startswith("single"):  # padded text: the original lets it attend to itself, nothing reads it
            image = torch.ones(mask.shape[0], expected.shape[1] - mask.shape[1], dtype=torch.bool)
            valid = torch.cat((image, mask), dim=1)
        assert_golden(got.pop(key)[valid], expected[valid], ATOL, key)
    assert not got, f"golden file lacks {sorted(got)}"


@torch.no_grad()
def test_dropping_padding_equals_masking_it(golden: Callable[[str], Golden]) -> None:
    file = golden("dit_a")
    dit, inputs = golden_dit(file), file.group("c0.in")
    masked = run(dit, inputs)
    valid = int(inputs["text_mask"].sum())
    short = {**inputs, "text_states": inputs["text_states"][:, :valid], "text_mask": torch.ones(1, valid)}
    assert_golden(run(dit, short), masked, ATOL)


@torch.no_grad()
def test_conditioning_of_many_steps_at_once_equals_one_at_a_time(golden: Callable[[str], Golden]) -> None:
    file = golden("dit_a")
    dit, inputs = golden_dit(file), file.group("c2.in")
    t = torch.tensor([1000.0, 501.0, 12.5])

    def condition(t: Tensor) -> Conditioning:
        rows = len(t)
        states, pooled = inputs["text_states"], inputs["text_states_2"]
        return dit.condition(
            t, states.expand(rows, -1, -1), pooled.expand(rows, -1), inputs["guidance"].expand(rows)
        )

    rope = inputs["freqs_cos"][:, ::2], inputs["freqs_sin"][:, ::2]
    many = condition(t)
    for i in range(3):
        one = dit(inputs["x"], condition(t[i : i + 1]), rope)
        assert_golden(dit(inputs["x"], many.row(i), rope), one, ATOL)


@pytest.mark.parametrize("guidance", [True, False])
@torch.no_grad()
def test_equals_diffusers(
    golden: Callable[[str], Golden], manifest: Callable[[str], Any], guidance: bool
) -> None:
    from diffusers import HunyuanVideoTransformer3DModel

    file = golden("dit_a" if guidance else "dit_b")
    dit, inputs = golden_dit(file), file.group("c0.in")
    c = dit.config
    oracle = HunyuanVideoTransformer3DModel(
        num_attention_heads=c.num_heads,
        attention_head_dim=c.head_dim,
        num_layers=c.num_double_blocks,
        num_single_layers=c.num_single_blocks,
        guidance_embeds=c.guidance_embed,
        text_embed_dim=c.text_dim,
        pooled_projection_dim=c.pooled_dim,
        rope_axes_dim=c.rope_dims,
    ).eval()
    ours = dit.state_dict()
    pieces = diffusers_from_original(c).items()
    oracle.load_state_dict(
        {k: torch.cat([ours[p.name][p.start : p.stop] for p in parts]) for k, parts in pieces}
    )
    expected = oracle(
        inputs["x"],
        inputs["t"],
        inputs["text_states"],
        inputs["text_mask"],
        inputs["text_states_2"],
        inputs.get("guidance"),
    ).sample
    assert_golden(run(dit, inputs), expected, ATOL)


@pytest.mark.parametrize(
    ("model", "keys"),
    [("HYVideo-T/2-cfgdistill", "dit_original_cfgdistill"), ("HYVideo-T/2", "dit_original_base")],
)
def test_full_size_keys(manifest: Callable[[str], dict[str, Any]], model: str, keys: str) -> None:
    with torch.device("meta"):
        dit = HunyuanVideoDiT(MODELS[model].dit)
    assert {k: list(v.shape) for k, v in dit.state_dict().items()} == {
        k: shape for k, (shape, _) in manifest(keys).items()
    }


def test_the_320_block_linears_are_what_fp8_replaces() -> None:
    with torch.device("meta"):
        dit = HunyuanVideoDiT(MODELS["HYVideo-T/2-cfgdistill"].dit, block_linear=Fp8Linear)
    assert sum(isinstance(module, Fp8Linear) for module in dit.modules()) == 320
