"""Compiles what the operators would launch on a GPU that is not here: `compile_elsewhere.py CAPABILITY`.

Prints, of each kernel, how many of its versions were compiled and the most bytes of a thread's stack: what a
thread has no register for goes there. Nothing is launched: pointers lead to a CPU's memory.
"""

import functools
import json
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

from hyvideo_rt.kernels import (
    gelu_triton,
    group_norm_triton,
    modulate_triton,
    quantise_triton,
    rope_triton,
    smooth_triton,
    upsample_triton,
)

KERNELS = Path(upsample_triton.__file__).parent
TOKENS = 64
CAUSAL = (1, 1, 1, 1, 2, 0)
CUOBJDUMP = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"


class Elsewhere:
    """As much of Triton's driver as compiling asks for."""

    def __init__(self, capability: int) -> None:
        self._target = GPUTarget("cuda", capability, 32)

    def get_current_target(self) -> GPUTarget:
        return self._target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def main() -> None:
    compiled: dict[str, list[int]] = defaultdict(list)
    launch = JITFunction.run

    @functools.wraps(launch)
    def only_compile(self: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> None:
        kernel = launch(self, *args, grid=grid, warmup=True, **options)
        compiled[self.fn.__name__].append(stack_bytes(kernel.asm["cubin"]))

    triton.runtime.driver.set_active(Elsewhere(int(sys.argv[1])))
    JITFunction.run = only_compile
    dit(3072, 128, torch.bfloat16)  # the published model
    dit(96, 24, torch.float32)  # sizes that are no powers of two
    vae((128, 3, 32, 32), 32, torch.float16)
    vae((512, 3, 16, 16), 32, torch.float16)
    vae((48, 2, 1, 1), 8, torch.float32)
    sources = [path.read_text() for path in KERNELS.glob("*_triton.py")]
    written = {name for source in sources for name in re.findall(r"^def (\w+_kernel)\(", source, re.M)}
    result = {name: {"versions": len(found), "stack": max(found)} for name, found in compiled.items()}
    print(json.dumps({"missing": sorted(written - set(compiled)), "kernels": result}))


def stack_bytes(cubin: bytes) -> int:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        dump = [str(CUOBJDUMP), "--dump-resource-usage", file.name]
        text = subprocess.run(dump, capture_output=True, text=True, check=True).stdout
    stacks = [int(found) for found in re.findall(r"STACK:(\d+)", text)]
    assert stacks, text
    return max(stacks)


def dit(width: int, head_dim: int, dtype: torch.dtype) -> None:
    def zeros(*shape: int) -> Tensor:
        return torch.zeros(shape, dtype=dtype)

    heads, joint = width // head_dim, zeros(1, TOKENS, 7 * width)
    x, row, mlp = zeros(1, TOKENS, width), zeros(1, width), joint[..., 3 * width :]
    qkv = joint[..., : 3 * width].unflatten(-1, (3, heads, head_dim))
    weight, table = zeros(head_dim), torch.zeros(TOKENS, head_dim // 2)
    modulate_triton.layer_norm_modulate(x, row, row)
    modulate_triton.gate_residual(x, row, x)
    modulate_triton.gate_residual_norm(x, row, x, row, row)
    rope_triton.joint_qkv(qkv, qkv, weight, weight, weight, weight, table, table)
    rope_triton.qk_norm_rope(qkv, weight, weight, table, table)
    gelu_triton.gelu_beside(x, mlp)
    quantise_triton.quantise_rows(x)
    quantise_triton.gelu_rows(mlp)
    quantise_triton.gelu_beside_rows(x, mlp)
    quantise_triton.layer_norm_modulate_rows(x, row, row)
    quantise_triton.quantise_tensor(x)
    smooth_triton.smooth(*qkv.unbind(2))


def vae(shape: tuple[int, int, int, int], groups: int, dtype: torch.dtype) -> None:
    x = torch.zeros(1, *shape, dtype=dtype).contiguous(memory_format=torch.channels_last_3d)
    weight = torch.zeros(shape[0], dtype=dtype)
    group_norm_triton.group_norm_silu_pad(x, weight, weight, groups, CAUSAL)
    for factor in ((1, 1, 1), (1, 2, 2), (2, 2, 2)):
        upsample_triton.upsample_pad(x, factor, CAUSAL)


if __name__ == "__main__":
    main()
