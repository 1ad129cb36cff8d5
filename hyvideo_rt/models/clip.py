"""The text tower of CLIP-L/14, for its pooled state. Names of weights are those of the published file."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hyvideo_rt.config import ClipConfig
from hyvideo_rt.models.embedding import Embedding


class ClipTextEncoder(nn.Module):
    """Token ids to one vector: the normed state at the first end-of-text token, without text projection.

    Attention is causal, so what follows that token (padding) cannot change the result.
    """

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.config = config
        self.text_model = ClipTextModel(config)

    def forward(self, input_ids: Tensor) -> Tensor:
        """input_ids [B, L] int64, L <= 77, with an end-of-text token; pooled [B, D] in the weights' dtype."""
        states = self.text_model(input_ids)
        first_eos = (input_ids == self.config.eos_token_id).int().argmax(dim=-1)
        pooled: Tensor = states[torch.arange(states.shape[0], device=states.device), first_eos]
        return pooled


class ClipTextModel(nn.Module):
    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.embeddings = ClipEmbeddings(config)
        self.encoder = ClipEncoder(config)
        self.final_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.norm_eps)

    def forward(self, input_ids: Tensor) -> Tensor:
        """input_ids [B, L]; the normed states of all tokens [B, L, D]."""
        out: Tensor = self.final_layer_norm(self.encoder(self.embeddings(input_ids)))
        return out


class ClipEmbeddings(nn.Module):
    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.token_embedding = Embedding(config.vocab_size, config.hidden_size)
        self.position_embedding = Embedding(config.max_positions, config.hidden_size)

    def forward(self, input_ids: Tensor) -> Tensor:
        out: Tensor = self.token_embedding(input_ids) + self.position_embedding.weight[: input_ids.shape[1]]
        return out


class ClipEncoder(nn.Module):
    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(ClipLayer(config) for _ in range(config.num_layers))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


class ClipLayer(nn.Module):
    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.self_attn = ClipAttention(config)
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, eps=config.norm_eps)
        self.mlp = ClipMlp(config)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, eps=config.norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x))
        out: Tensor = x + self.mlp(self.layer_norm2(x))
        return out


class ClipAttention(nn.Module):
    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        d = config.hidden_size
        self.num_heads = config.num_heads
        self.k_proj = nn.Linear(d, d)
        self.v_proj = nn.Linear(d, d)
        self.q_proj = nn.Linear(d, d)
        self.out_proj = nn.Linear(d, d)

    def forward(self, x: Tensor) -> Tensor:
        """x [B, L, D]; out like x."""
        q, k, v = (
            proj(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # [B, nh, L, hd]
            for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        attn = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        out: Tensor = self.out_proj(attn.transpose(1, 2).flatten(2))
        return out


class ClipMlp(nn.Module):
    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc1(x)
        out: Tensor = self.fc2(x * torch.sigmoid(1.702 * x))  # quick-GELU
        return out
