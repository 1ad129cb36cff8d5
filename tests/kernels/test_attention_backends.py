import sys

import pytest
import torch

from hyvideo_rt.kernels.attention import joint_attention_reference
from hyvideo_rt.kernels.attention_backends import BACKENDS, joint_attention_by


@pytest.mark.parametrize("name", ["sdpa", "math"])
def test_padding_is_cut_off(name: str) -> None:
    q, k, v = torch.randn(3, 2, 9, 3, 8, generator=torch.Generator().manual_seed(0))
    attention = joint_attention_by(BACKENDS[name].load())
    torch.testing.assert_close(
        attention(q, k, v, None), joint_attention_reference(q, k, v), atol=1e-6, rtol=0
    )
    counts = torch.tensor([5, 9])
    k[0, 5:], v[0, 5:] = torch.nan, torch.nan  # what is cut off is not even multiplied by zero
    out, expected = attention(q, k, v, counts), joint_attention_reference(q[:1, :5], k[:1, :5], v[:1, :5])
    torch.testing.assert_close(out[:1, :5], expected, atol=1e-6, rtol=0)
    assert (out[0, 5:] == 0).all()
    torch.testing.assert_close(out[1:], joint_attention_reference(q[1:], k[1:], v[1:]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ["fa4", "fa3", "fa3-fp8", "cudnn-fp8", "sage"])
def test_a_library_that_is_missing_is_an_import_error(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = BACKENDS[name].module
    monkeypatch.setitem(sys.modules, module.partition(".")[0], None)  # also where it is installed
    with pytest.raises(ImportError, match=module.partition(".")[0]):
        BACKENDS[name].load()
