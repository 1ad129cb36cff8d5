"""The lossy settings whose videos are judged: by a GPU's own kernels there, by references on a CPU."""

from dataclasses import dataclass, replace

import torch

from hyvideo_rt.attention import Setting as Where
from hyvideo_rt.attention import try_attention
from hyvideo_rt.bench.arithmetic import cudnn_fp8_attention, sage_attention
from hyvideo_rt.cli.ops_choice import attention_cache
from hyvideo_rt.config import MODELS
from hyvideo_rt.export.programs import ATTENTION, LINEARS
from hyvideo_rt.kernels.attention import joint_attention_fp8
from hyvideo_rt.kernels.attention_backends import BACKENDS, joint_attention_by
from hyvideo_rt.kernels.ops import REFERENCE, Ops
from hyvideo_rt.models.dit import HunyuanVideoDiT
from hyvideo_rt.weights.checkpoint import Checkpoint

CPU, BF16 = torch.device("cpu"), torch.bfloat16
PRODUCTS = (*LINEARS["double_block"], *LINEARS["single_block"])
DENSE = "dense"
CALIBRATED = ", calibrated"  # behind the name of a setting
ON_CPU = {
    DENSE: REFERENCE,
    "fa3-fp8": replace(REFERENCE, joint_attention=joint_attention_fp8),
    "cudnn-fp8": replace(REFERENCE, joint_attention=joint_attention_by(cudnn_fp8_attention)),
    "sage": replace(REFERENCE, joint_attention=joint_attention_by(sage_attention)),
}


@dataclass(frozen=True)
class Setting:
    """What computes in how many bits. attention: "dense", or the name of the GPU's backend that rounds."""

    dtype: torch.dtype = BF16
    weights_in_8_bits: bool = False
    products_in_8_bits: bool = False
    attention: str = DENSE
    wide: tuple[str, ...] = ()

    def load(self, checkpoint: Checkpoint, device: torch.device = CPU) -> HunyuanVideoDiT:
        return checkpoint.load_dit(
            device,
            self.dtype,
            fp8=self.weights_in_8_bits or self.products_in_8_bits,
            fp8_products=self.products_in_8_bits,
            wide=self.wide,
            ops=operators(self.attention, device),
        )

    def reason_against(self, device: torch.device) -> str:
        """Why it cannot run there, "" if it can; its attention is tried in a process of its own."""
        if device.type == "cpu":
            return ""
        if self.products_in_8_bits and torch.cuda.get_device_capability(device) < (8, 9):
            return "products in 8 bits need compute capability 8.9"
        if self.attention == DENSE:
            return ""
        where = Where(device, self.dtype, MODELS["tiny"].dit.head_dim)
        return try_attention(self.attention, where, attention_cache()).reason


SETTINGS = {
    "fp32": Setting(torch.float32),
    "8-bit weights": Setting(weights_in_8_bits=True),
    "8-bit products": Setting(products_in_8_bits=True),
    "8-bit attention": Setting(attention="fa3-fp8"),
    "8-bit attention and output": Setting(attention="cudnn-fp8"),
    "SageAttention (INT8)": Setting(attention="sage"),
    "8-bit products and attention": Setting(products_in_8_bits=True, attention="fa3-fp8"),
}


def operators(attention: str, device: torch.device) -> Ops:
    """Those of the device; torch's attention where it is dense."""
    if device.type == "cpu":
        return ON_CPU[attention]
    from hyvideo_rt.kernels.triton_ops import triton_ops  # others import this module without Triton

    name = "sdpa" if attention == DENSE else attention
    return triton_ops(name, BACKENDS[name].load())


def in_8_bits(layer: str) -> Setting:
    """This kind of layer alone."""
    if layer == ATTENTION:
        return SETTINGS["8-bit attention"]
    return Setting(products_in_8_bits=True, wide=tuple(name for name in PRODUCTS if name != layer))
