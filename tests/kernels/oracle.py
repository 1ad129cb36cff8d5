"""How the tests of kernels compare, and where they run."""

import torch
from torch import Tensor

DEVICE = torch.device(
    "cuda" if torch.cuda.is_available() else "cpu"
)  # a CPU interprets the kernels: see conftest.py


def assert_close_to_oracle(out: Tensor, reference: Tensor, oracle: Tensor) -> None:
    """A kernel may err twice as much as the plain low-precision reference does, plus one rounding step."""
    rounding = torch.finfo(out.dtype).eps * oracle.abs().max()
    error, budget = (out - oracle).abs().max(), 2 * ((reference - oracle).abs().max() + rounding)
    assert error <= budget, f"error {error:.2e}, budget {budget:.2e}"
