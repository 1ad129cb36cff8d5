"""cuDNN's attention in 8 bits, by NVIDIA's frontend (`nvidia-cudnn-frontend`). Never run on a GPU yet.

From q, k and v in E4M3 it writes E4M3 on Hopper, and nothing else. That is means of centred values, so the
scale of v holds them. A tensor has one scale.
"""

import functools
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from hyvideo_rt.kernels.smooth import Smoothed

# Of a row's largest probability, 1 before its sum is divided by: E4M3 then holds 2**-17 of it as well.
PROBABILITY_SCALE = 256.0
SCALES = ("descale_q", "descale_k", "descale_v", "descale_s", "scale_s", "scale_o")


PLANS = 16  # of the last shapes; a prompt's length is in them


class Plans:
    """A plan per shape and device, made at its first call."""

    def __init__(self, cudnn: ModuleType) -> None:
        self._cudnn = cudnn
        self._handle = functools.cache(lambda device: cudnn.create_handle())  # of the current device
        self._plan = functools.lru_cache(PLANS)(self._make)

    def run(self, smoothed: Smoothed) -> Tensor:
        """Of q, k, v [B, L, nh, hd] with one scale each: the attention in E4M3, like q, in the scale of v."""
        q, k, v, k_scale, *_ = smoothed
        with torch.cuda.device(q.device):
            graph, inputs, scales, output = self._plan(tuple(q.shape), q.device)
            out, one = torch.empty_like(q), torch.ones_like(k_scale[0, 0])
            of_s = one * PROBABILITY_SCALE
            values = one, k_scale[0, 0], one, 1 / of_s, of_s, one  # v's own scale is that of the output
            pack = dict(zip((*inputs, *scales, output), (q, k, v, *values, out), strict=True))
            workspace = torch.empty(graph.get_workspace_size(), dtype=torch.uint8, device=q.device)
            handle = self._handle(q.device)
            self._cudnn.set_stream(handle, torch.cuda.current_stream().cuda_stream)
            graph.execute(pack, workspace, handle)
        return out

    def _make(self, shape: tuple[int, ...], device: torch.device) -> tuple[Any, list[Any], list[Any], Any]:
        """The graph; its q, k and v; its scales; its output."""
        types = self._cudnn.data_type
        b, tokens, heads, hd = shape
        sizes, strides = [b, heads, tokens, hd], [tokens * heads * hd, hd, heads * hd, 1]
        graph = self._cudnn.pygraph(
            io_data_type=types.FP8_E4M3,
            intermediate_data_type=types.FLOAT,
            compute_data_type=types.FLOAT,
            handle=self._handle(device),
        )
        inputs = [
            graph.tensor(name=name, dim=sizes, stride=strides, data_type=types.FP8_E4M3) for name in "qkv"
        ]
        single = {"dim": [1] * 4, "stride": [1] * 4}
        scales = [graph.tensor(name=name, **single, data_type=types.FLOAT) for name in SCALES]
        output, _, *largest = graph.sdpa_fp8(
            **dict(zip("qkv", inputs, strict=True)),
            **dict(zip(SCALES, scales, strict=True)),
            generate_stats=False,
            attn_scale=hd**-0.5,
        )
        output.set_output(True).set_dim(sizes).set_stride(strides).set_data_type(types.FP8_E4M3)
        for each in largest:  # of probabilities and output: nobody asks
            each.set_output(False).set_dim([1] * 4).set_stride([1] * 4).set_data_type(types.FLOAT)
        graph.build([self._cudnn.heur_mode.A])
        return graph, inputs, scales, output
