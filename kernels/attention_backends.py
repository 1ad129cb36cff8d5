"""Who computes the joint attention: torch's own kernels, or libraries that are faster where they run.

Each is called with q, k, v [B, L, nh, hd] fp16 or bf16, every token valid, and gives [B, L, nh * hd] like q.
Those of 8 bits round q, k and v, or some of them, and are never chosen unless they are asked for by name.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class AttentionBackend:
    """`load` imports its library, or raises ImportError, and gives the function.

    module is what is imported, "" for torch itself; package what brings it. bits 8 is lossy. capability is
    the first and the last major compute capability it has kernels for.
    """

    load: Callable[[], Attend]
    module: str = ""
    package: str = ""
    bits: int = 16
    capability: tuple[int, int] = (8, 99)


def _sdpa(kernel: SDPBackend | None) -> Attend:
    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        if kernel is None:
            return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        with sdpa_kernel(kernel):
            return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)

    return attend


def _flash_attention_3() -> Attend:
    run = import_module("fa3_fwd_interface").flash_attn_func
    return lambda q, k, v: _first(run(q, k, v)).flatten(2)


def _flash_attention_3_fp8() -> Attend:
    run = import_module("fa3_fwd_interface").flash_attn_func
    smooth = import_module("hyvideo_rt.kernels.smooth_triton").smooth

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q8, k8, v8, k_scale, v_scale, v_mean = smooth(q, k, v)
        one = torch.ones_like(k_scale)
        out = _first(run(q8, k8, v8, q_descale=one, k_descale=k_scale, v_descale=v_scale))
        return out.add_(v_mean[:, None]).to(q.dtype).flatten(2)

    return attend


def _flash_attention_4() -> Attend:
    run = import_module("flash_attn.cute").flash_attn_func
    return lambda q, k, v: _first(run(q, k, v)).flatten(2)


def _cudnn_fp8() -> Attend:
    library = import_module("cudnn")
    plans = import_module("hyvideo_rt.kernels.cudnn_fp8").Plans(library)
    smooth = import_module("hyvideo_rt.kernels.smooth_triton").smooth

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        smoothed = smooth(q, k, v, one_scale=True)
        out: Tensor = plans.run(smoothed).to(q.dtype).mul_(smoothed.v_scale[:, None, :, None])
        return out.add_(smoothed.v_mean[:, None]).flatten(2)

    return attend


def _sage() -> Attend:
    run = import_module("sageattention").sageattn

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out: Tensor = run(q, k.clone(), v, tensor_layout="NHD")  # it centres k in place
        return out.flatten(2)

    return attend


def _first(out: Tensor | tuple[Tensor, ...]) -> Tensor:
    """Some versions give the sums of the softmax as well."""
    return out[0] if isinstance(out, tuple) else out


BACKENDS: dict[str, AttentionBackend] = {  # fastest first, where each runs
    "fa4": AttentionBackend(_flash_attention_4, "flash_attn.cute", "flash-attn-4", capability=(9, 11)),
    "fa3": AttentionBackend(_flash_attention_3, "fa3_fwd_interface", "fa3-fwd", capability=(9, 9)),
    "cudnn": AttentionBackend(functools.partial(_sdpa, SDPBackend.CUDNN_ATTENTION)),
    "flash": AttentionBackend(functools.partial(_sdpa, SDPBackend.FLASH_ATTENTION)),
    "efficient": AttentionBackend(
        functools.partial(_sdpa, SDPBackend.EFFICIENT_ATTENTION), capability=(5, 99)
    ),
    "math": AttentionBackend(functools.partial(_sdpa, SDPBackend.MATH), capability=(0, 99)),
    "sdpa": AttentionBackend(functools.partial(_sdpa, None), capability=(0, 99)),
    "fa3-fp8": AttentionBackend(
        _flash_attention_3_fp8, "fa3_fwd_interface", "fa3-fwd", bits=8, capability=(9, 9)
    ),
    "cudnn-fp8": AttentionBackend(_cudnn_fp8, "cudnn", "nvidia-cudnn-frontend", bits=8, capability=(9, 9)),
    "sage": AttentionBackend(_sage, "sageattention", "sageattention", bits=8),
}


@functools.cache
def _loaded(name: str) -> Attend:
    return BACKENDS[name].load()


@torch.library.custom_op("hyvideo_rt::joint_attention", mutates_args=())
def joint_attention(q: Tensor, k: Tensor, v: Tensor, backend: str) -> Tensor:
    """One operator in compiled graphs, whoever computes it: q, k, v [B, L, nh, hd] to [B, L, nh * hd]."""
    out: Tensor = _loaded(backend)(q, k, v).contiguous()
    return out


@joint_attention.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, backend: str) -> Tensor:
    return q.new_empty(q.shape[0], q.shape[1], q.shape[2] * q.shape[3])


def opaque_joint_attention(backend: str) -> Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]:
    """For graphs in which every token is valid."""

    def run(q: Tensor, k: Tensor, v: Tensor, valid_tokens: Tensor | None = None) -> Tensor:
        assert valid_tokens is None, "these graphs see no padding"
        out: Tensor = joint_attention(q, k, v, backend)
        return out

    return run


def joint_attention_by(attend: Attend) -> Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]:
    """The operator `joint_attention`: padding is cut off, sample by sample, never masked.

    Rows of padded queries come out as zeros.
    """

    def run(q: Tensor, k: Tensor, v: Tensor, valid_tokens: Tensor | None = None) -> Tensor:
        if valid_tokens is None:
            return attend(q, k, v)
        out = q.new_zeros(*q.shape[:2], q.shape[2] * q.shape[3])
        for i, count in enumerate(valid_tokens.tolist()):
            own = slice(i, i + 1)
            out[own, :count] = attend(q[own, :count], k[own, :count], v[own, :count])
        return out

    return run
