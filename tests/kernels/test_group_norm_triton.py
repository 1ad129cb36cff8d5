from collections.abc import Callable, Iterator

import pytest
import torch
from oracle import DEVICE, assert_close_to_oracle
from torch import Tensor

from hyvideo_rt.kernels import group_norm_triton
from hyvideo_rt.kernels.group_norm import group_norm_silu_pad_reference
from hyvideo_rt.kernels.group_norm_triton import group_norm_silu_pad

CAUSAL = (1, 1, 1, 1, 2, 0)  # in front of every 3 x 3 x 3 convolution
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


@pytest.fixture(autouse=True)
def poisoned_memory() -> Iterator[None]:
    """What `torch.empty` returns is NaN, so that nothing unwritten or unread goes unseen."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def inputs(
    shape: tuple[int, ...], dtype: torch.dtype, mean: float = 0.5, std: float = 1.0
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator(DEVICE).manual_seed(0)
    x = torch.empty(shape, dtype=dtype, device=DEVICE, memory_format=torch.channels_last_3d)
    x.normal_(mean, std, generator=generator)
    weight, bias = torch.randn(2, shape[1], generator=generator, device=DEVICE).to(dtype)
    return x, weight, bias


def check(out: Tensor, x: Tensor, weight: Tensor, bias: Tensor, groups: int, pad: tuple[int, ...]) -> None:
    reference = group_norm_silu_pad_reference(x, weight, bias, groups, pad)
    oracle = group_norm_silu_pad_reference(x.double(), weight.double(), bias.double(), groups, pad)
    assert out.dtype == x.dtype
    assert out.is_contiguous(memory_format=torch.channels_last_3d)
    assert_close_to_oracle(out, reference, oracle)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("shape", "groups"),
    [
        ((2, 48, 2, 3, 5), 8),  # groups of 6, as in the tiny model
        ((1, 15, 3, 2, 4), 3),
        ((1, 512, 2, 4, 9), 32),  # two chunks of positions, two tiles of a line
        ((2, 8, 1, 1, 1), 1),
    ],
)
@pytest.mark.parametrize("pad", [CAUSAL, (0, 0, 0, 0, 0, 0), (3, 2, 2, 1, 0, 1)])
def test_equals_the_reference(
    shape: tuple[int, ...], groups: int, pad: tuple[int, ...], dtype: torch.dtype
) -> None:
    x, weight, bias = inputs(shape, dtype)
    check(group_norm_silu_pad(x, weight, bias, groups, pad), x, weight, bias, groups, pad)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_large_mean_leaves_the_variance(dtype: torch.dtype) -> None:
    x, weight, bias = inputs((1, 256, 5, 6, 7), dtype, mean=30)
    check(group_norm_silu_pad(x, weight, bias, 32, CAUSAL), x, weight, bias, 32, CAUSAL)


def test_chunks_with_means_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames far apart, one chunk each, merged two at a time."""
    monkeypatch.setattr(group_norm_triton, "CHUNK", 6 * 16)
    monkeypatch.setattr(group_norm_triton, "MERGED_AT_ONCE", 2)
    x, weight, bias = inputs((2, 16, 5, 2, 3), torch.float32)
    x += 100 * torch.arange(5, device=DEVICE)[:, None, None]
    check(group_norm_silu_pad(x, weight, bias, 8, CAUSAL), x, weight, bias, 8, CAUSAL)


def test_a_constant_input_has_no_variance() -> None:
    x, weight, bias = inputs((1, 16, 2, 3, 4), torch.float16, mean=30, std=0)
    check(group_norm_silu_pad(x, weight, bias, 4, CAUSAL), x, weight, bias, 4, CAUSAL)


@pytest.mark.parametrize(
    "layout",
    [
        Tensor.contiguous,
        lambda x: x[:, :, 1:],
        lambda x: x[..., ::2],
        lambda x: x.transpose(3, 4),
    ],
)
def test_other_layouts_are_copied(layout: Callable[[Tensor], Tensor]) -> None:
    x, weight, bias = inputs((2, 16, 3, 4, 4), torch.bfloat16)
    x = layout(x)
    check(group_norm_silu_pad(x, weight, bias, 8, CAUSAL), x, weight, bias, 8, CAUSAL)


def test_weights_may_be_of_another_dtype() -> None:
    x, weight, bias = inputs((1, 16, 2, 3, 4), torch.bfloat16)
    got = group_norm_silu_pad(x, weight.float(), bias.float(), 8, CAUSAL)
    assert torch.equal(got, group_norm_silu_pad(x, weight, bias, 8, CAUSAL))


@pytest.mark.parametrize(
    "damage",
    [
        torch.zeros_like,
        lambda out: torch.full_like(out, torch.nan),
        lambda out: out.index_fill(4, torch.tensor([3], device=DEVICE), torch.nan),
        lambda out: torch.cat(out.chunk(2, dim=1)[::-1], dim=1),
        lambda out: out.roll(1, dims=2),
        lambda out: out.roll(1, dims=3),
        lambda out: out.roll(1, dims=4),
    ],
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_damage_is_seen(damage: Callable[[Tensor], Tensor], dtype: torch.dtype) -> None:
    x, weight, bias = inputs((1, 16, 3, 4, 5), dtype)
    reference = group_norm_silu_pad_reference(x, weight, bias, 8, CAUSAL)
    reference = reference.contiguous(memory_format=torch.channels_last_3d)
    check(reference, x, weight, bias, 8, CAUSAL)
    damaged = damage(reference).contiguous(memory_format=torch.channels_last_3d)
    with pytest.raises(AssertionError, match="budget"):
        check(damaged, x, weight, bias, 8, CAUSAL)


def test_traced_as_it_runs() -> None:
    x, weight, bias = inputs((1, 16, 2, 3, 4), torch.float32)
    tests = ("test_schema", "test_faketensor")
    torch.library.opcheck(group_norm_silu_pad, (x, weight, bias, 8, CAUSAL), test_utils=tests)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(16, 2, 3, 4)}, "x has shape (16, 2, 3, 4), expected [B, C, T, H, W]"),
        ({"x": torch.zeros(1, 16, 2, 3, 4).double()}, "x is torch.float64, expected one of"),
        ({"groups": 5}, "x has 16 channels, expected a multiple of 5 groups"),
        ({"groups": 0}, "x has 16 channels, expected a multiple of 0 groups"),
        ({"weight": torch.zeros(8)}, "weight has shape (8,) and stride (1,), expected [16], contiguous"),
        ({"bias": torch.zeros(32)[::2]}, "bias has shape (16,) and stride (2,), expected [16], contiguous"),
        ({"pad": (1, 1, 1, 1)}, "pad is (1, 1, 1, 1), expected (W, W, H, H, T, T), none negative"),
        ({"pad": (1, 1, 1, 1, 2, -1)}, "pad is (1, 1, 1, 1, 2, -1), expected"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, object], message: str) -> None:
    x, weight, bias = torch.zeros(1, 16, 2, 3, 4), torch.zeros(16), torch.zeros(16)
    arguments = {"x": x, "weight": weight, "bias": bias, "groups": 8, "pad": CAUSAL} | change
    with pytest.raises(ValueError) as error:  # noqa: PT011
        group_norm_silu_pad(**arguments)
    assert message in str(error.value)


@pytest.mark.gpu
@pytest.mark.parametrize(
    "shape",
    [
        (1, 512, 17, 32, 32),
        (1, 256, 65, 128, 128),
        (1, 128, 65, 256, 256),
        (1, 128, 65, 512, 520),  # 2.2e9 elements: 32 bits do not count them
    ],
)
@pytest.mark.parametrize("mean", [0.5, 30])
def test_full_size(shape: tuple[int, ...], mean: float) -> None:
    """All positions of the first and the last group; the others at least are written."""
    x, weight, bias = inputs(shape, torch.float16, mean)
    out = group_norm_silu_pad(x, weight, bias, 32, CAUSAL)
    assert out.isfinite().all()
    size = shape[1] // 32
    for part in (slice(0, size), slice(-size, None)):
        got = out[:, part].contiguous(memory_format=torch.channels_last_3d)
        check(got, x[:, part], weight[part], bias[part], 1, CAUSAL)
