"""The LLM that reads the prompt: a Llama decoder of which only hidden states are used.

Names of weights are those of transformers' LlamaModel without prefix. The state that feeds the DiT is taken
before the last layers, so those are never built. Attention is causal: padding on the right cannot reach a
valid token, which is why there is no mask anywhere.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hyvideo_rt.config import LlamaConfig
from hyvideo_rt.kernels.rope import cos_sin
from hyvideo_rt.models.embedding import Embedding

Rope = tuple[Tensor, Tensor]  # cos, sin [L, hd / 2], fp32


class LlamaEncoder(nn.Module):
    """Token ids to the hidden states after layer ``num_layers - skip_layers``.

    `norm` is the model's final norm; `forward` does not apply it.
    """

    def __init__(self, config: LlamaConfig, skip_layers: int = 2) -> None:
        super().__init__()
        self.config, self.skip_layers = config, skip_layers
        self.embed_tokens = Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(LlamaLayer(config) for _ in range(config.num_layers - skip_layers))
        self.norm = RMSNorm(config.hidden_size, config.norm_eps)

    def forward(self, input_ids: Tensor) -> Tensor:
        """input_ids [B, L] int64, BOS first; hidden states [B, L, D] in the weights' dtype."""
        x: Tensor = self.embed_tokens(input_ids)
        rope = _rope_table(input_ids.shape[1], self.config, x.device)
        for layer in self.layers:
            x = layer(x, rope)
        return x


class LlamaLayer(nn.Module):
    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.self_attn = LlamaAttention(config)
        self.mlp = LlamaMlp(config)
        self.input_layernorm = RMSNorm(config.hidden_size, config.norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.norm_eps)

    def forward(self, x: Tensor, rope: Rope) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), rope)
        out: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return out


class LlamaAttention(nn.Module):
    """Causal attention; groups of query heads share one key and value head (GQA)."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        d, hd = config.hidden_size, config.head_dim
        self.head_dim = hd
        self.grouped = config.num_kv_heads != config.num_heads
        self.q_proj = nn.Linear(d, config.num_heads * hd, bias=False)
        self.k_proj = nn.Linear(d, config.num_kv_heads * hd, bias=False)
        self.v_proj = nn.Linear(d, config.num_kv_heads * hd, bias=False)
        self.o_proj = nn.Linear(config.num_heads * hd, d, bias=False)

    def forward(self, x: Tensor, rope: Rope) -> Tensor:
        """x [B, L, D]; out like x."""
        q, k, v = (
            proj(x).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)  # [B, nh, L, hd]
            for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = _rotate(q, rope), _rotate(k, rope)
        attn = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=self.grouped)
        out: Tensor = self.o_proj(attn.transpose(1, 2).flatten(2))
        return out


class LlamaMlp(nn.Module):
    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        d, hidden = config.hidden_size, config.intermediate_size
        self.gate_proj = nn.Linear(d, hidden, bias=False)
        self.up_proj = nn.Linear(d, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, d, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class RMSNorm(nn.Module):
    """``weight * x / sqrt(mean(x^2) + eps)`` over the last dimension, statistics in fp32."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        wide = x.to(_at_least_fp32(x))
        normed = wide * torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + self.eps)
        return self.weight * normed.to(x.dtype)


def _rope_table(length: int, config: LlamaConfig, device: torch.device) -> Rope:
    """Angle of token l and pair i: ``l * theta^(-2i / hd)``."""
    pairs = torch.arange(0, config.head_dim, 2, dtype=torch.float32, device=device)
    frequencies = 1.0 / config.rope_theta ** (pairs / config.head_dim)
    angles = torch.arange(length, dtype=torch.float32, device=device)[:, None] * frequencies
    return cos_sin(angles)


def _rotate(x: Tensor, rope: Rope) -> Tensor:
    """Half-split RoPE on x [B, nh, L, hd]: feature i turns with feature ``i + hd / 2``; in fp32."""
    cos, sin = rope
    first, second = x.to(_at_least_fp32(x)).chunk(2, dim=-1)
    turned = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
    return turned.to(x.dtype)


def _at_least_fp32(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)  # fp64 stays fp64: the oracle
