from collections.abc import Callable, Iterator

import pytest
import torch
from oracle import DEVICE
from torch import Tensor

from hyvideo_rt.kernels.upsample import upsample_pad_reference, upsampled_shape
from hyvideo_rt.kernels.upsample_triton import upsample_pad

CAUSAL = (1, 1, 1, 1, 2, 0)  # in front of every 3 x 3 x 3 convolution
NO_PAD = (0, 0, 0, 0, 0, 0)
Factor = tuple[int, int, int]


@pytest.fixture(autouse=True)
def poisoned_memory() -> Iterator[None]:
    """What `torch.empty` returns is NaN, so that nothing unwritten goes unseen."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def random(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    x = torch.empty(shape, dtype=dtype, device=DEVICE, memory_format=torch.channels_last_3d)
    return x.normal_(generator=torch.Generator(DEVICE).manual_seed(0))


def check(out: Tensor, x: Tensor, factor: Factor, pad: tuple[int, ...]) -> None:
    """Copies are exact."""
    assert out.is_contiguous(memory_format=torch.channels_last_3d)
    assert torch.equal(out, upsample_pad_reference(x, factor, pad))


def test_the_first_frame_grows_in_space_only() -> None:
    x = torch.arange(6.0).view(1, 1, 3, 1, 2)
    rows = [[0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3], [4, 4, 5, 5], [4, 4, 5, 5]]
    frames = torch.tensor(rows, dtype=torch.float32)[:, None].repeat(1, 2, 1)
    assert torch.equal(upsample_pad_reference(x, (2, 2, 2), NO_PAD)[0, 0], frames)
    padded = upsample_pad_reference(x, (2, 2, 2), CAUSAL)[0, 0]
    assert torch.equal(padded[2:, 1:-1, 1:-1], frames)
    assert padded[:2].eq(padded[2]).all()
    assert padded[:, 0, :3].tolist() == [[0, 0, 0]] * 3 + [[2, 2, 2]] * 2 + [[4, 4, 4]] * 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(2, 48, 3, 2, 5), (1, 1, 1, 1, 1), (1, 512, 2, 1, 9)])
@pytest.mark.parametrize("factor", [(1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 1, 2)])
@pytest.mark.parametrize("pad", [CAUSAL, NO_PAD, (3, 2, 2, 1, 0, 1)])
def test_equals_the_reference(
    shape: tuple[int, ...], factor: Factor, pad: tuple[int, ...], dtype: torch.dtype
) -> None:
    x = random(shape, dtype)
    out = upsample_pad(x, factor, pad)
    assert list(out.shape) == upsampled_shape(shape, factor, pad)
    check(out, x, factor, pad)


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
    x = layout(random((2, 16, 3, 4, 4), torch.float16))
    check(upsample_pad(x, (2, 2, 2), CAUSAL), x, (2, 2, 2), CAUSAL)


@pytest.mark.parametrize(
    "damage",
    [
        torch.zeros_like,
        lambda out: torch.full_like(out, torch.nan),
        lambda out: torch.cat(out.chunk(2, dim=1)[::-1], dim=1),
        lambda out: out.roll(1, dims=2),
        lambda out: out.roll(1, dims=3),
        lambda out: out.roll(1, dims=4),
    ],
)
def test_damage_is_seen(damage: Callable[[Tensor], Tensor]) -> None:
    x = random((1, 16, 3, 4, 5), torch.float16)
    damaged = damage(upsample_pad_reference(x, (2, 2, 2), CAUSAL))
    damaged = damaged.contiguous(memory_format=torch.channels_last_3d)
    with pytest.raises(AssertionError, match="equal"):
        check(damaged, x, (2, 2, 2), CAUSAL)


def test_traced_as_it_runs() -> None:
    x = random((1, 16, 2, 3, 4), torch.float32)
    tests = ("test_schema", "test_faketensor")
    torch.library.opcheck(upsample_pad, (x, (2, 2, 2), CAUSAL), test_utils=tests)


@pytest.mark.parametrize(
    ("shape", "factor", "pad", "message"),
    [
        ((2, 3, 4, 5), (1, 2, 2), CAUSAL, "x has shape (2, 3, 4, 5), expected [B, C, T, H, W]"),
        ((1, 2, 3, 4, 5), (1, 3, 2), CAUSAL, "factor is (1, 3, 2), expected (T, H, W), each 1 or 2"),
        ((1, 2, 3, 4, 5), (2, 2), CAUSAL, "factor is (2, 2), expected (T, H, W), each 1 or 2"),
        ((1, 2, 3, 4, 5), (2, 2, 2), (1, 1), "pad is (1, 1), expected (W, W, H, H, T, T), none negative"),
        ((1, 2, 3, 4, 5), (2, 2, 2), (0, 0, 0, 0, 0, -1), "pad is (0, 0, 0, 0, 0, -1), expected"),
    ],
)
def test_what_does_not_fit_is_refused(
    shape: tuple[int, ...], factor: tuple[int, ...], pad: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011
        upsample_pad(torch.zeros(shape), factor, pad)
    assert message in str(error.value)


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("shape", "factor"),
    [
        ((1, 16, 17, 32, 32), (1, 1, 1)),
        ((1, 512, 17, 32, 32), (1, 2, 2)),
        ((1, 512, 17, 64, 64), (2, 2, 2)),
        ((1, 256, 33, 128, 128), (2, 2, 2)),
        ((1, 512, 33, 128, 128), (2, 2, 2)),  # 2.3e9 elements: 32 bits do not count them
    ],
)
def test_full_size(shape: tuple[int, ...], factor: Factor) -> None:
    """All positions of the first and the last channels; the others at least are written."""
    x = random(shape, torch.float16)
    out = upsample_pad(x, factor, CAUSAL)
    assert out.isfinite().all()
    for part in (slice(0, 4), slice(-4, None)):
        got = out[:, part].contiguous(memory_format=torch.channels_last_3d)
        check(got, x[:, part], factor, CAUSAL)
