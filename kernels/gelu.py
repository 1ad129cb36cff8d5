"""``[attn, gelu(mlp)]``: the MLP's GELU beside the attention, which is what a single block's linear2 reads.

attn [B, L, D], mlp [B, L, M] fp32, fp16 or bf16; out [B, L, D + M] like attn; GELU by tanh, in fp32.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def gelu_reference(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


def gelu_beside_reference(attn: Tensor, mlp: Tensor) -> Tensor:
    return torch.cat((attn, gelu_reference(mlp)), dim=-1)
