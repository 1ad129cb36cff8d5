"""8-bit weights rounded for what they will be multiplied with, instead of each to its nearest value.

GPTQ (arXiv 2210.17323) on the grid of E4M3: same format, scales and speed as `quantise_e4m3`, less error in
the products.
"""

import torch
from torch import Tensor

from hyvideo_rt.kernels.fp8 import E4M3, E4M3_MAX
from hyvideo_rt.weights.loading import quantise_e4m3

DAMPING = 0.01  # of the inputs' mean power, added to each: inputs that were never seen may come


def round_for_inputs(weight: Tensor, moment: Tensor) -> tuple[Tensor, Tensor]:
    """weight [out, in] in floating point: E4M3 [out, in] and scale [out] fp32, ``weight ~ scale * E4M3``.

    moment [in, in] is the mean of ``x x^T`` over what the layer has been given. Column by column, those of
    the most power first, values round to nearest, and what that adds to the products is taken out of the
    columns that are still to come: with the inverse of the moments ``U^T U``, U upper triangular, an error e
    of column i changes column j by ``-e U_ij / U_ii``.
    """
    nearest, scale = quantise_e4m3(weight)
    order = torch.argsort(moment.diagonal(), descending=True)
    factor = _factor(moment[order][:, order])
    if factor is None:
        return nearest, scale
    left = (weight.float() / scale[:, None])[:, order]
    rounded = torch.empty_like(left, dtype=E4M3)
    for i in range(left.shape[1]):
        rounded[:, i] = left[:, i].clamp(-E4M3_MAX, E4M3_MAX).to(E4M3)
        error = (left[:, i] - rounded[:, i].float()) / factor[i, i]
        left[:, i + 1 :] -= error[:, None] * factor[i, None, i + 1 :]
    out = torch.empty_like(rounded)
    out[:, order] = rounded
    return out, scale


def _factor(moment: Tensor) -> Tensor | None:
    """U of the inverse ``U^T U`` of the damped moments, upper triangular, fp32; None if all are zero."""
    power = moment.diagonal().mean()
    if power == 0:
        return None
    damped = moment.double() + DAMPING * power * torch.eye(len(moment), device=moment.device)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    upper: Tensor = torch.linalg.cholesky(inverse, upper=True).float()
    return upper
