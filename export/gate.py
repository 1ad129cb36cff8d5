"""Did TensorRT keep what makes the engine fast? Read from the layers that its builder lists, without a GPU.

What is lost silently otherwise: attention that falls apart into kernels with a tokens x tokens tensor between
them, products in a wider dtype than asked for, weights that are transposed again at every call.
"""

from collections.abc import Iterator

from hyvideo_rt.engines.spec import EngineSpec, Precision
from hyvideo_rt.engines.tensorrt import Layer, Report
from hyvideo_rt.errors import BuildFailed
from hyvideo_rt.export.programs import ATTENTION, LINEARS, Program

FUSED_ATTENTION = "_gemm_mha"
PRODUCTS = ("Fc", "matmul", "MatMul")  # in the names of kernels around a matrix product
TRANSPOSITION = "Tran"
FP16_KEYS = 65_504  # reported for TensorRT's fused attention: tier4/autoware-ml, pull request 95
DTYPES: dict[Precision, str] = {"fp32": "Float", "bf16": "BFloat16", "fp16": "Half", "fp8": "FP8"}
# Scratch over the bytes of one stream, tokens x width: 6 and 16 in full-size blocks (TensorRT-RTX 1.7.1). All
# scores of attention at once would be 900, at 118,800 tokens.
SCRATCH_STREAMS, SCRATCH_LEAST = 20, 32 << 20
BYTES: dict[Precision, int] = {"fp32": 4, "bf16": 2, "fp16": 2, "fp8": 2}  # of a stream's values


def check_gate(report: Report, spec: EngineSpec, program: Program) -> None:
    """Raises BuildFailed with all that is wrong. A tile of the VAE has no such promises to keep."""
    if spec.component == "vae_decoder_tile":
        return
    faults = [
        *_attention_faults(report, spec),
        *_product_faults(report, spec),
        *_other(report, spec, program),
    ]
    if faults:
        raise BuildFailed(f"{spec.name} was built, but {'; '.join(faults)}\n  nothing was stored")


def _attention_faults(report: Report, spec: EngineSpec) -> Iterator[str]:
    """q, k and v in the asked dtype; the mask is wider."""
    fused = [layer for layer in report.layers if FUSED_ATTENTION in layer.name]
    if len(fused) != 1:
        yield f"its attention is {len(fused)} fused kernels instead of 1"
    if spec.precision == "fp16" and sum(spec.shape) > FP16_KEYS:
        keys = sum(spec.shape)
        yield f"fp16 attention gives NaN above {FP16_KEYS} keys, and it has {keys}: take bf16 or fp8"
    asked = _dtype(spec, ATTENTION)
    for layer in fused:
        if _count(layer, asked) < 3:
            yield f"its attention computes in {_dtypes(layer)} instead of {asked}"


def _product_faults(report: Report, spec: EngineSpec) -> Iterator[str]:
    """As many products as linear layers, both sides of each in the dtype that was asked for it."""
    products = [layer for layer in report.layers if any(word in layer.name for word in PRODUCTS)]
    asked = [_dtype(spec, name) for name in LINEARS[spec.component]]
    for dtype in dict.fromkeys(asked):
        found = sum(_count(layer, dtype) >= 2 for layer in products)
        if found != asked.count(dtype):
            others = ", ".join(f"{layer.name[:40]} {_dtypes(layer)}" for layer in products)
            yield f"it has {found} matrix products in {dtype} instead of {asked.count(dtype)} ({others})"


def _other(report: Report, spec: EngineSpec, program: Program) -> Iterator[str]:
    matrices = {weight.name for weight in program.weights if len(weight.shape) > 1}
    for layer in report.layers:
        if TRANSPOSITION in layer.name and not matrices.isdisjoint(name for name, _ in layer.inputs):
            yield f"{layer.name[:60]} transposes a weight at every call"
    width = program.outputs[0].shape[-1]
    assert isinstance(width, int)
    allowed = max(SCRATCH_LEAST, SCRATCH_STREAMS * sum(spec.shape) * width * BYTES[spec.precision])
    if report.scratch_bytes > allowed:
        yield f"it needs {report.scratch_bytes / 1e9:.1f} GB of scratch, allowed are {allowed / 1e9:.1f}"


def _dtype(spec: EngineSpec, layer: str) -> str:
    """What was asked for this layer of a block."""
    return DTYPES["bf16" if spec.precision == "fp8" and layer in spec.wide else spec.precision]


def _count(layer: Layer, dtype: str) -> int:
    return sum(found == dtype for _, found in layer.inputs)


def _dtypes(layer: Layer) -> str:
    return "+".join(dict.fromkeys(dtype for _, dtype in layer.inputs))
