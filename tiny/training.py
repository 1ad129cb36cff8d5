"""The loop that all stages share: Muon for so many minutes, an average of the weights, a line every 20 s.

The learning rate follows the clock, not the step: it is zero exactly when the time is out, on any machine.
"""

import copy
import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from hyvideo_rt.models.clip import ClipLayer
from hyvideo_rt.models.dit import DoubleBlock, RefinerBlock, SingleBlock
from hyvideo_rt.models.llama import LlamaLayer
from tiny.muon import Muon

LOG_SECONDS, SAVE_SECONDS = 20.0, 240.0
WARM_UP_STEPS = 100
MAX_GRAD_NORM = 1.0
BLOCKS = (DoubleBlock, SingleBlock, RefinerBlock, LlamaLayer, ClipLayer)
Network = TypeVar("Network", bound=nn.Module)
Step = Callable[[], tuple[Tensor, int]]  # the loss of a new batch, and its number of clips
OnTime = Callable[[], None]


def prepare_device(device: torch.device) -> None:
    """TF32 where fp32 is left."""
    torch.set_float32_matmul_precision("high")
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = True


def autocast(device: torch.device) -> torch.autocast:
    """bf16 on a GPU and on a CPU with matrix units for it (AMX); elsewhere nothing changes."""
    fast = device.type == "cuda" or torch.cpu._is_amx_tile_supported()
    return torch.autocast(device.type, torch.bfloat16, enabled=fast)


def plain_attention(device: torch.device) -> AbstractContextManager[None]:
    """On a CPU, attention as two matrix products: faster for so few tokens, and Inductor fuses the rest."""
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext()


def compile_blocks(module: nn.Module) -> None:
    """Compile each transformer block: equal ones share one compilation, which is most of its time.

    What cannot be compiled runs as it is.
    """
    torch._dynamo.config.recompile_limit = 64
    torch._dynamo.config.suppress_errors = True
    for block in module.modules():
        if isinstance(block, BLOCKS):
            block.compile(dynamic=False)


def eager_unless(compiled: bool) -> AbstractContextManager[Any]:
    """Compiled blocks run as they are in this context: for shapes too rare to be worth a compilation."""
    stance: AbstractContextManager[Any] = torch.compiler.set_stance("default" if compiled else "force_eager")
    return stance


class Average(Generic[Network]):
    """A moving average of a module's weights; short at first, so that it forgets the start."""

    def __init__(self, module: Network, decay: float) -> None:
        self.module = copy.deepcopy(module).requires_grad_(False).eval()
        self.decay = decay
        self._pairs: tuple[list[Tensor], list[Tensor]] = ([*self.module.parameters()], [*module.parameters()])
        self._steps = 0

    @torch.no_grad()
    def update(self) -> None:
        self._steps += 1
        decay = min(self.decay, self._steps / (self._steps + 10))
        ours, theirs = self._pairs
        torch._foreach_lerp_(ours, theirs, 1 - decay)


def train(
    module: Network,
    average: Average[Network],
    step: Step,
    *,
    minutes: float,
    learning_rate: float,
    save: OnTime,
    note: Callable[[], str] = str,
) -> None:
    """Steps until the time is out, the last `save` included in it; `note` adds words to the log's lines."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    optimizer = Muon(module)
    log = _Log(note)
    next_save = SAVE_SECONDS
    for elapsed_s, progress in _clock(minutes * 60):
        loss, clips = step()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, MAX_GRAD_NORM)
        optimizer.step(learning_rate * learning_rate_factor(log.steps, progress))
        optimizer.zero_grad()
        average.update()
        log.add(loss, clips, elapsed_s, progress)
        if elapsed_s > next_save:
            save()
            next_save += SAVE_SECONDS
    log.write(1.0)
    save()


def learning_rate_factor(step: int, progress: float) -> float:
    """A linear warm-up over the first steps, then half a cosine to zero; progress in 0..1.

    The warm-up counts steps because the first one, which compiles, can take a tenth of the time.
    """
    return min(1.0, (step + 1) / WARM_UP_STEPS) * 0.5 * (1 + math.cos(math.pi * progress))


def _clock(seconds: float) -> Iterator[tuple[float, float]]:
    """Seconds and progress at each step, until the time is out; the device's queue is part of the time."""
    start = time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        yield elapsed, elapsed / seconds


class _Log:
    """Means since the last line."""

    def __init__(self, note: Callable[[], str]) -> None:
        self.note = note
        self.steps = 0
        self._last_s = time.perf_counter()
        self._losses: list[Tensor] = []
        self._clips = 0

    def add(self, loss: Tensor, clips: int, elapsed_s: float, progress: float) -> None:
        self.steps += 1
        self._clips += clips
        self._losses.append(loss.detach())
        if time.perf_counter() - self._last_s > LOG_SECONDS:
            self.write(progress)

    def write(self, progress: float) -> None:
        if not self._losses:
            return
        loss = float(torch.stack(self._losses).mean())  # waits for the device
        now = time.perf_counter()
        rate = self._clips / (now - self._last_s)
        words = f"step {self.steps:6}  loss {loss:.5f}  {rate:7.0f} clips/s  {self.note()}"
        print(f"{100 * progress:5.1f} %  {words}", flush=True)
        if not math.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss}; the last checkpoint is whole")
        self._last_s, self._losses, self._clips = now, [], 0
