"""Did TensorRT keep what makes the engine fast? Read from the layers that its builder lists, without a GPU.

What is lost silently otherwise: attention that falls apart into kernels with a tokens x tokens tensor between
them, products in a wider dtype than asked for, weights that are transposed again at every call.
"""

from collections.abc import Iterator

from hyvideo_rt.engines.spec import EngineSpec, Precision
from hyvideo_rt.engines.tensorrt import Layer, Report
from hyvideo_rt.errors import BuildFailed
from hyvideo_rt.export.programs import Program

ATTENTION = "_gemm_mha"
PRODUCT = "Fc"  # in the names of fused kernels around a matrix product
TRANSPOSITION = "Tran"
DTYPES: dict[Precision, str] = {"fp32": "Float", "bf16": "BFloat16", "fp16": "Half"}
LINEARS = {"double_block": 8, "single_block": 2}
# Scratch over the bytes of one stream, tokens x width: 6 and 16 in full-size blocks (TensorRT-RTX 1.7.1). All
# scores of attention at once would be 900, at 118,800 tokens.
SCRATCH_STREAMS, SCRATCH_LEAST = 20, 32 << 20
BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}


def check_gate(report: Report, spec: EngineSpec, program: Program) -> None:
    """Raises BuildFailed with all that is wrong. The decoder of the VAE has no rules yet but its dtype."""
    faults = [*_dtype_faults(report, spec)]
    if spec.component != "vae_decoder_tile":
        faults += _block_faults(report, spec, program)
    if faults:
        raise BuildFailed(f"{spec.name} was built, but {'; '.join(faults)}\n  nothing was stored")


def _dtype_faults(report: Report, spec: EngineSpec) -> Iterator[str]:
    asked = DTYPES[spec.precision]
    for layer in report.layers:
        computed = {dtype for _, dtype in layer.inputs if dtype != "Int64"}
        if _is_product(layer) and computed != {asked}:
            yield f"{layer.name[:60]} computes in {'+'.join(sorted(computed))} instead of {asked}"


def _block_faults(report: Report, spec: EngineSpec, program: Program) -> Iterator[str]:
    attentions = sum(ATTENTION in layer.name for layer in report.layers)
    if attentions != 1:
        yield f"its attention is {attentions} fused kernels instead of 1"
    products = sum(_is_product(layer) for layer in report.layers) - attentions
    if products != LINEARS[spec.component]:
        yield f"it has {products} matrix products instead of {LINEARS[spec.component]}"
    matrices = {weight.name for weight in program.weights if len(weight.shape) > 1}
    for layer in report.layers:
        if TRANSPOSITION in layer.name and not matrices.isdisjoint(name for name, _ in layer.inputs):
            yield f"{layer.name[:60]} transposes a weight at every call"
    width = program.outputs[0].shape[-1]
    assert isinstance(width, int)
    allowed = max(SCRATCH_LEAST, SCRATCH_STREAMS * sum(spec.shape) * width * BYTES[spec.precision])
    if report.scratch_bytes > allowed:
        yield f"it needs {report.scratch_bytes / 1e9:.1f} GB of scratch, allowed are {allowed / 1e9:.1f}"


def _is_product(layer: Layer) -> bool:
    return ATTENTION in layer.name or PRODUCT in layer.name
