"""3-D convolution without padding: x [B, C, T, H, W], weight [O, C, kT, kH, kW], bias [O].

On a CPU in fp32, torch calls oneDNN only for inputs above a certain size; below, it runs a loop that was 15x
slower (16 channels to 16, 19 x 66 x 66: 49 ms against 3.2 ms, torch 2.13, 2 cores). So it is called by name,
where autocast does not see it: without gradients it stays in fp32.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

ONEDNN = torch.backends.mkldnn.is_available()  # torch.compile cannot trace the question


def conv3d_reference(x: Tensor, weight: Tensor, bias: Tensor, stride: Sequence[int]) -> Tensor:
    """oneDNN where it is there; plain where gradients or a graph for any device are wanted."""
    by_name = ONEDNN and x.device.type == "cpu" and x.dtype == torch.float32
    if by_name and not torch.is_grad_enabled() and not torch.compiler.is_compiling():
        return conv3d_onednn(x, weight, bias, stride)
    return F.conv3d(x, weight, bias, stride)


def conv3d_onednn(x: Tensor, weight: Tensor, bias: Tensor, stride: Sequence[int]) -> Tensor:
    """On a CPU; exportable, without gradients."""
    out: Tensor = torch.ops.mkldnn._convolution_pointwise(
        x, weight, bias, (0, 0, 0), stride, (1, 1, 1), 1, "none", [], ""
    )
    return out
