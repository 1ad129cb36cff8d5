"""Names of the DiT's tensors in the original release and in diffusers, and the rules between them.

Our networks use the original names. The rules are a table; `dit_key_rules` expands it for any number of
blocks, `original_from_diffusers` and `diffusers_from_original` say which pieces make up each tensor.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from hyvideo_rt.config import DiTConfig

Layout = Literal["original", "diffusers"]


@dataclass(frozen=True)
class Piece:
    """Rows [start, stop) along dim 0 of the stored tensor `name`, which must have `rows` of them.

    By default all of a tensor that has the shape of its target.
    """

    name: str
    start: int = 0
    stop: int | None = None
    rows: int | None = None


KeyMap = Mapping[str, tuple[Piece, ...]]  # target -> what it is made of, in order along dim 0


@dataclass(frozen=True)
class KeyRule:
    """One original tensor and what diffusers makes of it.

    Without `sizes` a new name; with several names a split along dim 0 into `sizes`; with `swap_halves` the
    halves along dim 0, of `sizes`, change places.
    """

    original: str
    diffusers: tuple[str, ...]
    sizes: tuple[int, ...] = ()
    swap_halves: bool = False


@dataclass(frozen=True)
class _Swapped:
    to: str


# A name stands for its weight and its bias, unless it says `.weight`. Several names: a split along dim 0, the
# model's width each and the MLP's width for a fourth.
_Table = Mapping[str, str | tuple[str, ...] | _Swapped]

_EMBEDDERS: _Table = {
    "img_in.proj": "x_embedder.proj",
    "time_in.mlp.0": "time_text_embed.timestep_embedder.linear_1",
    "time_in.mlp.2": "time_text_embed.timestep_embedder.linear_2",
    "vector_in.in_layer": "time_text_embed.text_embedder.linear_1",
    "vector_in.out_layer": "time_text_embed.text_embedder.linear_2",
    "txt_in.input_embedder": "context_embedder.proj_in",
    "txt_in.t_embedder.mlp.0": "context_embedder.time_text_embed.timestep_embedder.linear_1",
    "txt_in.t_embedder.mlp.2": "context_embedder.time_text_embed.timestep_embedder.linear_2",
    "txt_in.c_embedder.linear_1": "context_embedder.time_text_embed.text_embedder.linear_1",
    "txt_in.c_embedder.linear_2": "context_embedder.time_text_embed.text_embedder.linear_2",
}
_GUIDANCE: _Table = {
    "guidance_in.mlp.0": "time_text_embed.guidance_embedder.linear_1",
    "guidance_in.mlp.2": "time_text_embed.guidance_embedder.linear_2",
}
_REFINER_BLOCK: _Table = {
    "norm1": "norm1",
    "norm2": "norm2",
    "self_attn_qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "self_attn_proj": "attn.to_out.0",
    "mlp.fc1": "ff.net.0.proj",
    "mlp.fc2": "ff.net.2",
    "adaLN_modulation.1": "norm_out.linear",  # two gates, in the same order
}
_DOUBLE_BLOCK: _Table = {
    "img_mod.linear": "norm1.linear",
    "img_attn_qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "img_attn_q_norm.weight": "attn.norm_q.weight",
    "img_attn_k_norm.weight": "attn.norm_k.weight",
    "img_attn_proj": "attn.to_out.0",
    "img_mlp.fc1": "ff.net.0.proj",
    "img_mlp.fc2": "ff.net.2",
    "txt_mod.linear": "norm1_context.linear",
    "txt_attn_qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "txt_attn_q_norm.weight": "attn.norm_added_q.weight",
    "txt_attn_k_norm.weight": "attn.norm_added_k.weight",
    "txt_attn_proj": "attn.to_add_out",
    "txt_mlp.fc1": "ff_context.net.0.proj",
    "txt_mlp.fc2": "ff_context.net.2",
}
_SINGLE_BLOCK: _Table = {
    "linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
    "linear2": "proj_out",  # input features keep their order: attention, MLP
    "q_norm.weight": "attn.norm_q.weight",
    "k_norm.weight": "attn.norm_k.weight",
    "modulation.linear": "norm.linear",
}
_FINAL: _Table = {
    "final_layer.linear": "proj_out",
    "final_layer.adaLN_modulation.1": _Swapped("norm_out.linear"),  # [shift; scale] to [scale; shift]
}


def dit_key_rules(config: DiTConfig) -> Iterator[KeyRule]:
    """Every tensor of the DiT, once."""
    blocks = (
        ("txt_in.individual_token_refiner.blocks", "context_embedder.token_refiner.refiner_blocks"),
        ("double_blocks", "transformer_blocks"),
        ("single_blocks", "single_transformer_blocks"),
    )
    counts = (config.num_refiner_blocks, config.num_double_blocks, config.num_single_blocks)
    tables = (_REFINER_BLOCK, _DOUBLE_BLOCK, _SINGLE_BLOCK)
    yield from _expand(_EMBEDDERS, "", "", config)
    if config.guidance_embed:
        yield from _expand(_GUIDANCE, "", "", config)
    for (original, diffusers), count, table in zip(blocks, counts, tables, strict=True):
        for i in range(count):
            yield from _expand(table, f"{original}.{i}.", f"{diffusers}.{i}.", config)
    yield from _expand(_FINAL, "", "", config)


def original_from_diffusers(config: DiTConfig) -> KeyMap:
    """Each original tensor as pieces of diffusers' tensors."""
    return {rule.original: _original_pieces(rule) for rule in dit_key_rules(config)}


def diffusers_from_original(config: DiTConfig) -> KeyMap:
    """Each of diffusers' tensors as pieces of the original tensors."""
    return {name: pieces for rule in dit_key_rules(config) for name, pieces in _diffusers_pieces(rule)}


def same_names(names: Mapping[str, object], prefix: str = "") -> KeyMap:
    """Tensors that lie in the file under their own names, or with `prefix` in front."""
    return {name: (Piece(prefix + name),) for name in names}


def _expand(table: _Table, original: str, diffusers: str, config: DiTConfig) -> Iterator[KeyRule]:
    d, sizes = config.hidden_size, (*[config.hidden_size] * 3, config.mlp_size)
    for stem, target in table.items():
        for end in [""] if stem.endswith(".weight") else [".weight", ".bias"]:
            name = original + stem + end
            match target:
                case str():
                    yield KeyRule(name, (diffusers + target + end,))
                case _Swapped(to):
                    yield KeyRule(name, (diffusers + to + end,), (d, d), swap_halves=True)
                case _:
                    parts = tuple(diffusers + part + end for part in target)
                    yield KeyRule(name, parts, sizes[: len(parts)])


def _original_pieces(rule: KeyRule) -> tuple[Piece, ...]:
    if rule.swap_halves:
        return _swapped(rule.diffusers[0], rule.sizes[0])
    if rule.sizes:
        return tuple(Piece(n, 0, size, size) for n, size in zip(rule.diffusers, rule.sizes, strict=True))
    return (Piece(rule.diffusers[0]),)


def _diffusers_pieces(rule: KeyRule) -> Iterator[tuple[str, tuple[Piece, ...]]]:
    if rule.swap_halves:
        yield rule.diffusers[0], _swapped(rule.original, rule.sizes[0])
    elif not rule.sizes:
        yield rule.diffusers[0], (Piece(rule.original),)
    start, rows = 0, sum(rule.sizes)
    if len(rule.diffusers) > 1:
        for name, size in zip(rule.diffusers, rule.sizes, strict=True):
            yield name, (Piece(rule.original, start, start + size, rows),)
            start += size


def _swapped(name: str, half: int) -> tuple[Piece, ...]:
    return Piece(name, half, 2 * half, 2 * half), Piece(name, 0, half, 2 * half)
