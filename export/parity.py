"""Is an engine as exact as the module it was made from? No engine that is not is ever stored.

Both compute the same random case, and so does the module in higher precision. On average (root mean square)
the engine may be twice as far from that as the module itself is, at its worst place eight times: the error of
the precision is the budget, not a number that someone chose.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from hyvideo_rt.errors import BuildFailed
from hyvideo_rt.export.programs import JOINT, TEXT, VALID, Argument, Program
from hyvideo_rt.kernels.fp8 import E4M3, E4M3_MAX

MEAN_TIMES, WORST_TIMES = 2.0, 8.0
# Above, the reference is fp32, not fp64, in which attention stores tokens x tokens and convolutions crawl.
EXACT_TOKENS, EXACT_PIXELS = 8192, 2**22
E4M3_SCALE = 2e-4
SMALLEST = 1e-7  # of the outputs' size: where the module happens to be exact, fp32 still rounds


@dataclass(frozen=True)
class Parity:
    """Errors against the module in `reference` precision, over all outputs, in units of their size (rms)."""

    where: str
    sizes: dict[str, int]
    reference: str
    module_error: float
    engine_error: float
    module_worst: float
    engine_worst: float

    @property
    def budget(self) -> float:
        return MEAN_TIMES * max(self.module_error, SMALLEST)

    def require(self, name: str) -> dict[str, object]:
        """As JSON. Raises BuildFailed unless the engine is within the budget."""
        worst = WORST_TIMES * max(self.module_worst, SMALLEST)
        if not (self.engine_error <= self.budget and self.engine_worst <= worst):  # NaN fails as well
            raise BuildFailed(
                f"{name} differs from the module by {self.engine_error:.1e} and at its worst by "
                f"{self.engine_worst:.1e}, allowed are {self.budget:.1e} and {worst:.1e}\n"
                f"  nothing was stored; please report this with the output of `hyvideo-rt doctor`"
            )
        return asdict(self) | {"budget": self.budget}


@torch.inference_mode()
def compare(
    program: Program,
    engine: Callable[..., Sequence[Tensor]],
    sizes: Mapping[str, int],
    device: torch.device,
    *,
    where: str = "device",
    seed: int = 0,
) -> Parity:
    """On the device where the engine runs, with these numbers of tokens.

    where is "device", or "onnx" if what runs is the engine's graph.
    """
    inputs, weights = random_case(program, sizes, device, seed)
    if sizes:
        small = sizes[JOINT] <= EXACT_TOKENS
    else:
        small = math.prod(program.outputs[0].resolved({})) <= EXACT_PIXELS
    higher = torch.float64 if small else torch.float32
    with torch.backends.cudnn.flags(allow_tf32=False):  # which has no more digits than fp16
        exact = program(_in(higher, inputs), _in(higher, weights))
    module, compiled = program(inputs, weights), engine(*inputs, *weights)
    module_error, module_worst = _errors(module, exact)
    engine_error, engine_worst = _errors(compiled, exact)
    return Parity(
        where=where,
        sizes=dict(sizes),
        reference=str(higher).removeprefix("torch."),
        module_error=module_error,
        engine_error=engine_error,
        module_worst=module_worst,
        engine_worst=engine_worst,
    )


def random_case(
    program: Program, sizes: Mapping[str, int], device: torch.device, seed: int = 0
) -> tuple[list[Tensor], list[Tensor]]:
    """Inputs and weights of a program that keep the size of activations, and use all of its precision."""
    generator = torch.Generator(device).manual_seed(seed)
    return (
        [_random_input(each, sizes, device, generator) for each in program.inputs],
        [_random_weight(each, device, generator) for each in program.weights],
    )


def _in(dtype: torch.dtype, tensors: Sequence[Tensor]) -> list[Tensor]:
    """Whole numbers and 8-bit weights are what they are."""
    return [x.to(dtype) if x.is_floating_point() and x.dtype != E4M3 else x for x in tensors]


def _errors(got: Sequence[Tensor], exact: Sequence[Tensor]) -> tuple[float, float]:
    """Root mean square and largest, over all outputs, over the root mean square of what is exact."""
    differences = torch.cat([(x.to(y.dtype) - y).flatten() for x, y in zip(got, exact, strict=True)])
    size = torch.cat([y.flatten() for y in exact]).square().mean().sqrt()
    return float(differences.square().mean().sqrt() / size), float(differences.abs().max() / size)


def _random_input(
    argument: Argument, sizes: Mapping[str, int], device: torch.device, generator: torch.Generator
) -> Tensor:
    """Standard normal; cosines and sines of one random angle each; half of the text is padding."""
    like = argument.zeros(sizes, device)
    if argument is VALID:
        return like + sizes[JOINT] - sizes[TEXT] // 2
    if argument.name in ("cos", "sin"):
        same = torch.Generator(device).manual_seed(1)
        angles = torch.rand(like.shape, generator=same, device=device) * 6.28
        return angles.cos_() if argument.name == "cos" else angles.sin_()
    return torch.randn(like.shape, generator=generator, device=device).to(like.dtype)


def _random_weight(argument: Argument, device: torch.device, generator: torch.Generator) -> Tensor:
    """Matrices that keep the size of what they multiply, norms' gains around 1, biases around 0.

    Those of 8 bits use half of E4M3's range, and their scales are as in a matrix of a few thousand rows.
    """
    like = argument.zeros({}, device)
    noise = torch.randn(like.shape, generator=generator, device=device)
    if like.dtype == E4M3:
        noise *= E4M3_MAX / 4
    elif argument.name.endswith(".scale"):
        noise = (1 + 0.1 * noise).abs() * E4M3_SCALE
    elif like.ndim > 1:
        noise /= like[0].numel() ** 0.5
    else:
        noise = 0.1 * noise + float(argument.name.endswith("weight"))
    return noise.to(like.dtype)
