"""From a source of tensors into a module, and the 8-bit weights of the original's fp8 checkpoint.

Everything is checked from headers, then each tensor goes straight to its device and dtype: peak host memory
on the CPU is the loaded module and one piece of a tensor. Names may differ between module and files; a
`KeyMap` says which pieces make up each tensor of the module.
"""

import re
from collections.abc import Mapping, Sequence
from itertools import chain

import torch
from torch import Tensor, nn

from hyvideo_rt.errors import WeightsError
from hyvideo_rt.kernels.fp8 import E4M3, E4M3_MAX
from hyvideo_rt.models.linear import dequantise_e4m3
from hyvideo_rt.weights.layouts import KeyMap, Piece
from hyvideo_rt.weights.tensor_files import TensorSource, some

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
QUANTISE_ELEMENTS = 1 << 20  # at a time, in fp32
WIDEST_BYTES = 8  # of a stored value


def load_into(
    module: nn.Module,
    source: TensorSource,
    keys: KeyMap,
    *,
    device: torch.device | str,
    dtype: torch.dtype,
    ignore: Sequence[str] = (),
) -> None:
    """Fill `module`, built on the meta device, and leave it in eval mode without gradients.

    Parameters get `dtype`, but E4M3 weights stay so: a wider checkpoint is quantised tensor by tensor. E4M3
    weights of the checkpoint are widened for a module without them. Buffers keep the module's dtype.

    Raises WeightsError, before any data is read, unless the checkpoint is exactly what the module needs;
    `ignore` has patterns of whole names that may be there besides.
    """
    check_tensors(module, source, keys, ignore=ignore)
    targets = module.state_dict()
    parameters = {name for name, _ in module.named_parameters()}
    largest = max((meta.numel() for meta in targets.values() if meta.dtype == E4M3), default=0)
    workspace = torch.empty(largest * WIDEST_BYTES, dtype=torch.uint8, device=device)
    for name, meta in targets.items():
        if meta.dtype == E4M3:
            weight, scale = _read_fp8(source, keys[name], meta.shape, workspace)
            _put(module, name, weight)
            _put(module, _scale_name(name), scale)
        elif not _is_scale(name, targets):
            out = torch.empty(meta.shape, dtype=dtype if name in parameters else meta.dtype, device=device)
            read_pieces(source, keys[name], out)
            _put(module, name, out)
    module.requires_grad_(False).eval()
    left = [name for name, t in chain(module.named_parameters(), module.named_buffers()) if t.is_meta]
    assert not left, f"not part of the state dict, so never loaded: {some(left)}"


def check_tensors(
    module: nn.Module, source: TensorSource, keys: KeyMap, *, ignore: Sequence[str] = ()
) -> None:
    """Raise WeightsError naming what is missing, unexpected, misshapen or of a wrong type in `source`."""
    expected = _expected_shapes(module.state_dict(), source, keys)
    specs = source.specs
    found = [name for name in expected if name in specs]
    unexpected = [name for name in specs if name not in expected]
    if ignore:
        ignored = re.compile("|".join(ignore))
        unexpected = [name for name in unexpected if not ignored.fullmatch(name)]
    problems = {
        "missing": [name for name in expected if name not in specs],
        "unexpected": unexpected,
        "of another shape": [
            f"{name} (got {list(specs[name].shape)}, expected {list(expected[name])})"
            for name in found
            if specs[name].shape != expected[name]
        ],
        "of another type": [
            f"{name} (got {specs[name].dtype}, expected floating point)"
            for name in found
            if specs[name].dtype not in (*FLOATS, E4M3)
        ],
    }
    if any(problems.values()):
        lines = [f"{len(names)} {what}: {some(names)}" for what, names in problems.items() if names]
        raise WeightsError(
            f"{source.label}: its tensors are not those of this {type(module).__name__}; {'; '.join(lines)}\n"
            f"  check that it is the right model and that its download is complete"
        )


def read_pieces(source: TensorSource, pieces: Sequence[Piece], out: Tensor) -> None:
    """Fill `out` with the pieces, one below the other, widening those that are E4M3."""
    row = 0
    for piece in pieces:
        stop = source.specs[piece.name].shape[0] if piece.stop is None else piece.stop
        part = out[row : row + stop - piece.start]
        row += stop - piece.start
        if _is_fp8(source, piece) and out.dtype != E4M3:
            stored = torch.empty(part.shape, dtype=E4M3, device=out.device)
            source.read_rows(piece.name, piece.start, stop, stored)
            part.copy_(dequantise_e4m3(stored, _stored_scale(source, piece, stop, out.device), out.dtype))
        else:
            source.read_rows(piece.name, piece.start, stop, part)


def quantise_e4m3(weight: Tensor) -> tuple[Tensor, Tensor]:
    """weight [out, in], floating point: E4M3 [out, in] and scale [out] fp32, ``weight ~ scale * E4M3``.

    ``scale = max|row| / 448``; values round to nearest, ties to even.
    """
    low, high = torch.aminmax(weight, dim=1)
    largest = torch.maximum(-low, high).float()
    most = largest.new_tensor(E4M3_MAX)  # instead of dividing by a number, CUDA multiplies by its reciprocal
    scale = torch.where(largest == 0, torch.ones_like(largest), largest / most)
    out = torch.empty_like(weight, dtype=E4M3)
    rows = max(1, QUANTISE_ELEMENTS // weight.shape[1])
    for row in range(0, weight.shape[0], rows):
        part = weight[row : row + rows].float()
        out[row : row + rows].copy_((part / scale[row : row + rows, None]).clamp_(-E4M3_MAX, E4M3_MAX))
    return out, scale


def _expected_shapes(
    targets: Mapping[str, Tensor], source: TensorSource, keys: KeyMap
) -> dict[str, tuple[int, ...]]:
    """Shapes of the stored tensors; a stored E4M3 weight needs its scale."""
    expected: dict[str, tuple[int, ...]] = {}
    for target, tensor in targets.items():
        if _is_scale(target, targets):
            continue
        for piece in keys[target]:
            rows = tensor.shape[0] if piece.rows is None else piece.rows
            expected[piece.name] = (rows, *tensor.shape[1:])
            if _is_fp8(source, piece):
                expected[_scale_name(piece.name)] = (rows,) if _has_scales(source, piece) else (1,)
    return expected


def _read_fp8(
    source: TensorSource, pieces: Sequence[Piece], shape: torch.Size, workspace: Tensor
) -> tuple[Tensor, Tensor]:
    """The E4M3 weight and its scale, as stored or quantised here, on the workspace's device.

    One workspace for all wide weights: allocated anew for each, they left holes as large as the module.
    """
    first, device = pieces[0], workspace.device
    stored_fp8 = _is_fp8(source, first)
    if stored_fp8 and len(pieces) == 1:
        weight = torch.empty(shape, dtype=E4M3, device=device)
        read_pieces(source, pieces, weight)
        return weight, _stored_scale(source, first, shape[0], device)
    wide_dtype = torch.bfloat16 if stored_fp8 else source.specs[first.name].dtype
    wide = workspace[: shape.numel() * wide_dtype.itemsize].view(wide_dtype).view(shape)
    read_pieces(source, pieces, wide)
    weight, scale = quantise_e4m3(wide)
    if not scale.isfinite().all():
        raise WeightsError(f"{source.path_of(first.name)}: {first.name} holds NaN or infinity")
    return weight, scale


def _stored_scale(source: TensorSource, piece: Piece, stop: int, device: torch.device | str) -> Tensor:
    """Of each row up to `stop`: its own, or the one that all have in the original's checkpoint."""
    name, rows = _scale_name(piece.name), stop - piece.start
    if _has_scales(source, piece):
        scale = torch.empty(rows, dtype=torch.float32, device=device)
        source.read_rows(name, piece.start, stop, scale)
        return scale
    scale = torch.empty(1, dtype=torch.float32, device=device)
    source.read_rows(name, 0, 1, scale)
    return scale.repeat(rows)


def _has_scales(source: TensorSource, piece: Piece) -> bool:
    """One per row of its tensor, as `calibration` writes them."""
    spec = source.specs.get(_scale_name(piece.name))
    return spec is not None and spec.shape == source.specs[piece.name].shape[:1]


def _is_fp8(source: TensorSource, piece: Piece) -> bool:
    return piece.name in source.specs and source.specs[piece.name].dtype == E4M3


def _scale_name(weight: str) -> str:
    return weight.removesuffix("weight") + "scale"


def _is_scale(name: str, targets: Mapping[str, Tensor]) -> bool:
    weight = targets.get(name.removesuffix("scale") + "weight")
    return name.endswith(".scale") and weight is not None and weight.dtype == E4M3


def _put(module: nn.Module, name: str, tensor: Tensor) -> None:
    path, _, leaf = name.rpartition(".")
    owner = module.get_submodule(path)
    is_parameter = leaf in dict(owner.named_parameters(recurse=False))
    setattr(owner, leaf, nn.Parameter(tensor, requires_grad=False) if is_parameter else tensor)
