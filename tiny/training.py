"""The loop that all stages share: Muon for so many minutes, an average of the weights, a line every 20 s.

The learning rate follows the clock, not the step: it is zero exactly when the time is out, on any machine.
"""

import copy
import functools
import math
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from hyvideo_rt.models.clip import ClipLayer
from hyvideo_rt.models.dit import DoubleBlock, RefinerBlock, SingleBlock
from hyvideo_rt.models.llama import LlamaLayer
from tiny.muon import Muon, has_bf16

LOG_SECONDS, SAVE_SECONDS = 20.0, 240.0
WARM_UP_STEPS = 100
MAX_GRAD_NORM = 1.0
BLOCKS = (DoubleBlock, SingleBlock, RefinerBlock, LlamaLayer, ClipLayer)
Network = TypeVar("Network", bound=nn.Module)
Step = Callable[[], tuple[Tensor, int]]  # the loss of a new batch, and its number of clips
EAGER_STEPS = 3  # of each kind, before a graph is captured: libraries and the optimiser set themselves up
OnTime = Callable[[], None]


def prepare_device(device: torch.device) -> None:
    """TF32 where fp32 is left."""
    torch.set_float32_matmul_precision("high")
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = True


def autocast(device: torch.device) -> torch.autocast:
    """bf16 where that is faster; elsewhere nothing changes."""
    return torch.autocast(device.type, torch.bfloat16, enabled=has_bf16(device))


def plain_attention(device: torch.device) -> AbstractContextManager[None]:
    """On a CPU, attention as two matrix products: faster for so few tokens, and Inductor fuses the rest."""
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext()


def compile_blocks(module: nn.Module) -> None:
    """Compile each transformer block, on a CPU: equal ones share one compilation, which is most of its time.

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


class Graphs:
    """Steps as CUDA graphs: captured once, then one launch instead of thousands.

    A step of the tiny model is some 3000 kernels of 5 us: without graphs the GPU waits for Python.
    """

    def __init__(self) -> None:
        self._calls: dict[Step, int] = {}
        self._graphs: dict[Step, tuple[torch.cuda.CUDAGraph, Tensor, int]] = {}
        self._pool = torch.cuda.graph_pool_handle()

    def run(self, step: Step) -> tuple[Tensor, int]:
        """What `step()` gives. It may only use the device, and does the same work each time."""
        self._calls[step] = self._calls.get(step, 0) + 1
        if self._calls[step] <= EAGER_STEPS:
            return step()
        if step not in self._graphs:
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self._pool):
                loss, clips = step()
            self._graphs[step] = graph, loss, clips
        graph, loss, clips = self._graphs[step]
        graph.replay()
        return loss.clone(), clips


def chooser(steps: Mapping[Step, float], rng: random.Random) -> Callable[[], Step]:
    """One of the steps at random, by weight."""
    names, weights = list(steps), list(steps.values())
    return lambda: rng.choices(names, weights)[0]


def train(
    module: Network,
    average: Average[Network],
    choose: Callable[[], Step],
    *,
    minutes: float,
    learning_rate: float,
    save: OnTime,
    note: Callable[[], str] = str,
    graphs: bool = False,
) -> None:
    """Steps until the time is out, the last `save` included in it; `note` adds words to the log's lines.

    `choose` gives the next step out of a few; with `graphs`, each of them becomes a CUDA graph.
    """
    parameters = [p for p in module.parameters() if p.requires_grad]
    rate = torch.zeros((), device=parameters[0].device)
    optimizer = Muon(module, rate)

    @functools.cache
    def update_of(step: Step) -> Step:
        """The step and what follows from it: weights that have changed."""

        def update() -> tuple[Tensor, int]:
            loss, clips = step()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, MAX_GRAD_NORM)
            optimizer.step()
            optimizer.zero_grad()
            return loss.detach(), clips

        return update

    run = Graphs().run if graphs else _run
    log = _Log(note)
    next_save = SAVE_SECONDS
    for elapsed_s, progress in _clock(minutes * 60):
        rate.fill_(learning_rate * learning_rate_factor(log.steps, progress))
        loss, clips = run(update_of(choose()))
        average.update()
        log.add(loss, clips, elapsed_s, progress)
        if elapsed_s > next_save:
            save()
            next_save += SAVE_SECONDS
    log.write(1.0)
    save()


def _run(step: Step) -> tuple[Tensor, int]:
    return step()


def learning_rate_factor(step: int, progress: float) -> float:
    """A linear warm-up over the first steps, then half a cosine to zero; progress in 0..1.

    The warm-up counts steps because the first one, which compiles, can take a tenth of the time.
    """
    return min(1.0, (step + 1) / WARM_UP_STEPS) * 0.5 * (1 + math.cos(math.pi * progress))


def _clock(seconds: float) -> Iterator[tuple[float, float]]:
    """Seconds and progress at each step, until the time is out."""
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
        self._losses.append(loss)
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
