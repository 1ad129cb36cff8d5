"""The HunyuanVideo diffusion transformer: 20 dual-stream and 40 single-stream blocks over image and text.

B batch, N image tokens, L text tokens, D width, nh heads, hd head dim. Weights keep upstream's names.

What depends on the timestep but not on the latents (all modulation vectors, the refined text) is a
`Conditioning`, computed once for all steps of a request; a step then runs only the blocks.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hyvideo_rt.config import DiTConfig
from hyvideo_rt.kernels.ops import REFERENCE, Activation, Ops

Rope = tuple[Tensor, Tensor]  # cos, sin [N, hd / 2]
Linear = Callable[[int, int], nn.Module]


@dataclass(frozen=True)
class Conditioning:
    """What the blocks need besides the latents, for each of B samples or B steps.

    text [B, L, D] refined; valid_text [B] int64, or None if no token is padding; per double block six
    modulation vectors [B, 6, D] for the image and six for the text, per single block three, for the end two.
    """

    text: Tensor
    valid_text: Tensor | None
    double: tuple[tuple[Tensor, Tensor], ...]
    single: tuple[Tensor, ...]
    final: Tensor

    def row(self, i: int) -> "Conditioning":
        """The conditioning of sample (or step) i alone, as views."""
        part = slice(i, i + 1)
        return Conditioning(
            self.text[part],
            None if self.valid_text is None else self.valid_text[part],
            tuple((img[part], txt[part]) for img, txt in self.double),
            tuple(mod[part] for mod in self.single),
            self.final[part],
        )


@dataclass(frozen=True)
class Blocks:
    """What runs the blocks: the modules themselves, or engines that do the same with their weights.

    double and single are called as `DoubleBlock.forward` and `SingleBlock.forward` are.
    """

    double: Sequence[Callable[..., tuple[Tensor, Tensor]]]
    single: Sequence[Callable[..., Tensor]]


def block_weights(block: nn.Module) -> dict[str, Tensor]:
    """What a block computes with, by name: all but the modulations, which are its inputs."""
    outside = ("img_mod.", "txt_mod.", "modulation.")
    return {name: tensor for name, tensor in block.state_dict().items() if not name.startswith(outside)}


class HunyuanVideoDiT(nn.Module):
    """Predicts the flow's velocity ``noise - video``.

    `block_linear` builds every linear layer inside the blocks (Fp8Linear for weight-only fp8), `block_ops`,
    which are `ops` if left out, are the operators there.
    """

    def __init__(
        self,
        config: DiTConfig,
        ops: Ops = REFERENCE,
        block_linear: Linear = nn.Linear,
        block_ops: Ops | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        block_ops = block_ops or ops
        d = config.hidden_size
        self.img_in = PatchEmbed(config)
        self.txt_in = TextRefiner(config, ops)
        self.time_in = ScalarEmbedder(d)
        self.vector_in = VectorEmbedder(config.pooled_dim, d)
        self.guidance_in = ScalarEmbedder(d) if config.guidance_embed else None
        blocks = range(config.num_double_blocks)
        self.double_blocks = nn.ModuleList(DoubleBlock(config, block_ops, block_linear) for _ in blocks)
        blocks = range(config.num_single_blocks)
        self.single_blocks = nn.ModuleList(SingleBlock(config, block_ops, block_linear) for _ in blocks)
        self.final_layer = FinalLayer(config, ops)

    def blocks(self) -> Blocks:
        """The modules themselves."""
        return Blocks(
            cast("Sequence[DoubleBlock]", self.double_blocks),
            cast("Sequence[SingleBlock]", self.single_blocks),
        )

    def forward(
        self, x: Tensor, conditioning: Conditioning, rope: Rope, blocks: Blocks | None = None
    ) -> Tensor:
        """One evaluation of the network; blocks None means its own modules.

        x [B, 16, T, H, W] noisy latents, any float dtype; rope tables of (T, H / 2, W / 2).
        Returns the velocity, fp32, shaped like x.
        """
        blocks = blocks or self.blocks()
        img = self.img_in(x.to(conditioning.text.dtype))
        txt = conditioning.text
        valid = None if conditioning.valid_text is None else conditioning.valid_text + img.shape[1]
        for double, (img_mod, txt_mod) in zip(blocks.double, conditioning.double, strict=True):
            img, txt = double(img, txt, img_mod, txt_mod, rope, valid)
        stream, joint_rope = torch.cat((img, txt), dim=1), unrotated_text(rope, txt.shape[1])
        for single, mod in zip(blocks.single, conditioning.single, strict=True):
            stream = single(stream, mod, joint_rope, valid)
        out = self.final_layer(stream[:, : img.shape[1]], conditioning.final)
        return self.unpatchify(out.float(), x.shape)

    def condition(
        self,
        t: Tensor,
        text_states: Tensor,
        text_states_2: Tensor,
        guidance: Tensor | None = None,
        valid_text: Tensor | None = None,
    ) -> Conditioning:
        """Everything of B samples (or of B steps of one sample) that does not depend on the latents.

        t [B] fp32, 1000 * sigma; text_states [B, L, text_dim] from the LLM; text_states_2 [B, pooled_dim]
        from CLIP; guidance [B], already times 1000, for a model with an embedder for it and None for others;
        valid_text [B] int64, how many leading text tokens are not padding, None if all are valid.
        """
        dtype = self.img_in.proj.weight.dtype
        vec: Tensor = self.time_in(t) + self.vector_in(text_states_2.to(dtype))
        if self.guidance_in is not None:
            assert guidance is not None, "this model embeds guidance"
            vec = vec + self.guidance_in(guidance)
        act = F.silu(vec)
        double_blocks = cast("Iterable[DoubleBlock]", self.double_blocks)
        single_blocks = cast("Iterable[SingleBlock]", self.single_blocks)
        return Conditioning(
            text=self.txt_in(text_states.to(dtype), t, valid_text),
            valid_text=valid_text,
            double=tuple((block.img_mod(act), block.txt_mod(act)) for block in double_blocks),
            single=tuple(block.modulation(act) for block in single_blocks),
            final=self.final_layer.adaLN_modulation(act).unflatten(-1, (2, -1)),
        )

    def unpatchify(self, tokens: Tensor, shape: torch.Size) -> Tensor:
        """[B, N, C * 4] with features ordered (C, pt, ph, pw) back to latents [B, C, T, H, W]."""
        pt, ph, pw = self.config.patch_size
        b, _, t, h, w = shape
        grid = tokens.view(b, t // pt, h // ph, w // pw, -1, pt, ph, pw)
        return grid.permute(0, 4, 1, 5, 2, 6, 3, 7).reshape(b, -1, t, h, w)


class DoubleBlock(nn.Module):
    """Image and text with their own weights, meeting in one attention."""

    def __init__(self, config: DiTConfig, ops: Ops, linear: Linear) -> None:
        super().__init__()
        d, hd, mlp = config.hidden_size, config.head_dim, config.mlp_size
        self.ops, self.heads = ops, (3, config.num_heads, hd)
        self.img_mod = Modulation(d, 6, linear)
        self.img_attn_qkv = linear(d, 3 * d)
        self.img_attn_q_norm = HeadNorm(hd)
        self.img_attn_k_norm = HeadNorm(hd)
        self.img_attn_proj = linear(d, d)
        self.img_mlp = Mlp(d, mlp, linear, ops.gelu)
        self.txt_mod = Modulation(d, 6, linear)
        self.txt_attn_qkv = linear(d, 3 * d)
        self.txt_attn_q_norm = HeadNorm(hd)
        self.txt_attn_k_norm = HeadNorm(hd)
        self.txt_attn_proj = linear(d, d)
        self.txt_mlp = Mlp(d, mlp, linear, ops.gelu)

    def forward(
        self, img: Tensor, txt: Tensor, img_mod: Tensor, txt_mod: Tensor, rope: Rope, valid: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """img [B, N, D], txt [B, L, D], modulations [B, 6, D], valid tokens [B] of N + L; both streams."""
        ops, tokens = self.ops, img.shape[1]
        shift1, scale1, gate1, shift2, scale2, gate2 = img_mod.unbind(1)
        txt_shift1, txt_scale1, txt_gate1, txt_shift2, txt_scale2, txt_gate2 = txt_mod.unbind(1)

        img_qkv = self.img_attn_qkv(ops.layer_norm_modulate(img, shift1, scale1))
        txt_qkv = self.txt_attn_qkv(ops.layer_norm_modulate(txt, txt_shift1, txt_scale1))
        q, k, v = ops.joint_qkv(
            img_qkv.unflatten(-1, self.heads),
            txt_qkv.unflatten(-1, self.heads),
            self.img_attn_q_norm.weight,
            self.img_attn_k_norm.weight,
            self.txt_attn_q_norm.weight,
            self.txt_attn_k_norm.weight,
            *rope,
        )
        attn = ops.joint_attention(q, k, v, valid)

        proj = self.img_attn_proj(attn[:, :tokens])
        img, normed = ops.gate_residual_norm(img, gate1, proj, shift2, scale2)
        img = ops.gate_residual(img, gate2, self.img_mlp(normed))
        proj = self.txt_attn_proj(attn[:, tokens:])
        txt, normed = ops.gate_residual_norm(txt, txt_gate1, proj, txt_shift2, txt_scale2)
        txt = ops.gate_residual(txt, txt_gate2, self.txt_mlp(normed))
        return img, txt


class SingleBlock(nn.Module):
    """Attention and MLP side by side over the joined stream [image ; text]."""

    def __init__(self, config: DiTConfig, ops: Ops, linear: Linear) -> None:
        super().__init__()
        d, mlp = config.hidden_size, config.mlp_size
        self.ops, self.heads = ops, (3, config.num_heads, config.head_dim)
        self.split = (3 * d, mlp)
        self.linear1 = linear(d, 3 * d + mlp)
        self.linear2 = linear(d + mlp, d)
        self.q_norm = HeadNorm(config.head_dim)
        self.k_norm = HeadNorm(config.head_dim)
        self.modulation = Modulation(d, 3, linear)

    def forward(self, x: Tensor, mod: Tensor, rope: Rope, valid: Tensor | None) -> Tensor:
        """x [B, N + L, D], mod [B, 3, D], rope tables of N + L, valid tokens [B] of them; out like x."""
        ops = self.ops
        shift, scale, gate = mod.unbind(1)
        qkv, mlp = self.linear1(ops.layer_norm_modulate(x, shift, scale)).split(self.split, dim=-1)
        qkv = qkv.unflatten(-1, self.heads)
        q, k = ops.qk_norm_rope(qkv, self.q_norm.weight, self.k_norm.weight, *rope)
        attn = ops.joint_attention(q, k, qkv.select(2, 2), valid)
        out = self.linear2(ops.gelu_beside(attn, mlp))
        return ops.gate_residual(x, gate, out)


class FinalLayer(nn.Module):
    def __init__(self, config: DiTConfig, ops: Ops) -> None:
        super().__init__()
        d = config.hidden_size
        self.ops = ops
        self.linear = nn.Linear(d, math.prod(config.patch_size) * config.out_channels)
        self.adaLN_modulation = nn.Sequential(nn.Identity(), nn.Linear(d, 2 * d))  # SiLU is shared, in act

    def forward(self, img: Tensor, mod: Tensor) -> Tensor:
        shift, scale = mod.unbind(1)
        out: Tensor = self.linear(self.ops.layer_norm_modulate(img, shift, scale))
        return out


class TextRefiner(nn.Module):
    """Two transformer blocks over the LLM's states, gated by the timestep and by the mean of the text."""

    def __init__(self, config: DiTConfig, ops: Ops) -> None:
        super().__init__()
        d = config.hidden_size
        self.input_embedder = nn.Linear(config.text_dim, d)
        self.t_embedder = ScalarEmbedder(d)
        self.c_embedder = TextEmbedder(config.text_dim, d)
        self.individual_token_refiner = TokenRefiner(config, ops)

    def forward(self, text: Tensor, t: Tensor, valid_text: Tensor | None) -> Tensor:
        """text [B, L, text_dim], t [B], valid_text [B]; out [B, L, D]."""
        act = F.silu(self.t_embedder(t) + self.c_embedder(_mean_of_valid(text, valid_text)))
        out: Tensor = self.individual_token_refiner(self.input_embedder(text), act, valid_text)
        return out


class TokenRefiner(nn.Module):
    def __init__(self, config: DiTConfig, ops: Ops) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(RefinerBlock(config, ops) for _ in range(config.num_refiner_blocks))

    def forward(self, x: Tensor, act: Tensor, valid_text: Tensor | None) -> Tensor:
        for block in self.blocks:
            x = block(x, act, valid_text)
        return x


class RefinerBlock(nn.Module):
    def __init__(self, config: DiTConfig, ops: Ops) -> None:
        super().__init__()
        d = config.hidden_size
        self.ops, self.heads = ops, (3, config.num_heads, config.head_dim)
        self.norm1 = nn.LayerNorm(d, eps=1e-6)
        self.self_attn_qkv = nn.Linear(d, 3 * d)
        self.self_attn_proj = nn.Linear(d, d)
        self.norm2 = nn.LayerNorm(d, eps=1e-6)
        self.mlp = Mlp(d, config.mlp_size, nn.Linear, F.silu)
        self.adaLN_modulation = nn.Sequential(nn.Identity(), nn.Linear(d, 2 * d))  # SiLU is shared, in act

    def forward(self, x: Tensor, act: Tensor, valid_text: Tensor | None) -> Tensor:
        gate1, gate2 = self.adaLN_modulation(act).chunk(2, dim=-1)
        q, k, v = self.self_attn_qkv(self.norm1(x)).unflatten(-1, self.heads).unbind(2)
        attn = self.ops.joint_attention(q, k, v, valid_text)
        x = self.ops.gate_residual(x, gate1, self.self_attn_proj(attn))
        return self.ops.gate_residual(x, gate2, self.mlp(self.norm2(x)))


class PatchEmbed(nn.Module):
    """Latents [B, C, T, H, W] to tokens [B, N, D], time-major, then rows, then columns.

    A convolution whose stride is its kernel is one matrix product over the patches.
    """

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.patch = config.patch_size
        self.proj = nn.Conv3d(config.in_channels, config.hidden_size, self.patch, stride=self.patch)

    def forward(self, x: Tensor) -> Tensor:
        b, c, t, h, w = x.shape
        pt, ph, pw = self.patch
        grid = x.view(b, c, t // pt, pt, h // ph, ph, w // pw, pw).permute(0, 2, 4, 6, 1, 3, 5, 7)
        return F.linear(grid.reshape(b, -1, c * pt * ph * pw), self.proj.weight.flatten(1), self.proj.bias)


def unrotated_text(rope: Rope, text_tokens: int) -> Rope:
    """Tables of the joint stream [N + L, hd / 2]: those of the image, and rotations by zero for the text."""
    cos, sin = rope
    below = (0, 0, 0, text_tokens)
    return F.pad(cos, below, value=1.0), F.pad(sin, below)


class ScalarEmbedder(nn.Module):
    """A scalar [B] to [B, D] through 256 sinusoids, cosines first (those of DDPM, arXiv 2006.11239)."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(256, hidden_size), nn.SiLU(), nn.Linear(hidden_size, hidden_size))

    def forward(self, value: Tensor) -> Tensor:
        angle = value.float()[:, None] * sinusoid_frequencies(value.device)
        features = torch.cat((angle.cos(), angle.sin()), dim=-1)
        out: Tensor = self.mlp(features.to(next(self.mlp.parameters()).dtype))
        return out


def sinusoid_frequencies(device: torch.device) -> Tensor:
    """``10000^(-k / 128)`` for k in 0..127, fp32, in upstream's order of operations.

    At guidance 6000 the rounding of one frequency moves its angle by 2e-4, so the order is part of the model.
    """
    k = torch.arange(128, dtype=torch.float32, device=device)
    return torch.exp(-math.log(10000) * k / 128)


class VectorEmbedder(nn.Module):
    def __init__(self, in_dim: int, hidden_size: int) -> None:
        super().__init__()
        self.in_layer = nn.Linear(in_dim, hidden_size)
        self.out_layer = nn.Linear(hidden_size, hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out_layer(F.silu(self.in_layer(x)))
        return out


class TextEmbedder(nn.Module):
    def __init__(self, in_dim: int, hidden_size: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(in_dim, hidden_size)
        self.linear_2 = nn.Linear(hidden_size, hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear_2(F.silu(self.linear_1(x)))
        return out


class Mlp(nn.Module):
    def __init__(self, size: int, hidden: int, linear: Linear, act: Callable[[Tensor], Activation]) -> None:
        super().__init__()
        self.fc1 = linear(size, hidden)
        self.act = act
        self.fc2 = linear(hidden, size)

    def forward(self, x: Activation) -> Tensor:
        out: Tensor = self.fc2(self.act(self.fc1(x)))
        return out


class Modulation(nn.Module):
    """``n`` vectors of width D from the activated conditioning vector: [B, D] to [B, n, D]."""

    def __init__(self, size: int, n: int, linear: Linear) -> None:
        super().__init__()
        self.n = n
        self.linear = linear(size, n * size)

    def forward(self, act: Tensor) -> Tensor:
        out: Tensor = self.linear(act).unflatten(-1, (self.n, -1))
        return out


class HeadNorm(nn.Module):
    """The learned weight of q's or k's RMS-norm; the operators that also rotate apply it."""

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(head_dim))


def _mean_of_valid(text: Tensor, valid_text: Tensor | None) -> Tensor:
    """Mean over the valid tokens, in fp32: [B, L, C] to [B, C]."""
    if valid_text is None:
        return text.float().mean(dim=1).to(text.dtype)
    valid = (torch.arange(text.shape[1], device=text.device) < valid_text[:, None]).float()[..., None]
    return ((text.float() * valid).sum(dim=1) / valid.sum(dim=1)).to(text.dtype)
