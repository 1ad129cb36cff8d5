"""What a video will take, in seconds of a device: the work that it is, times what finished jobs measured."""

import threading
from collections.abc import Mapping

from hyvideo_rt.buckets import Bucket
from hyvideo_rt.config import ModelConfig
from hyvideo_rt.sampling import SamplingParams

# Seconds per unit of work until something has been measured: a prompt, a FLOP, a pixel, a pixel. The GPU's
# are of an H100 (bench.footprint: a step of 720x1280x129 in 17.6 s, its decode in 11 s), the CPU's of two
# cores and the tiny model. They are off by a factor on other devices, until the warm-up has run.
GPU_PRIOR = {"encode": 0.1, "denoise": 3e-15, "decode": 1e-7, "write": 2e-8}
CPU_PRIOR = {"encode": 0.01, "denoise": 1e-11, "decode": 1.5e-6, "write": 5e-7}
WEIGHT_OF_NEWS = 0.3  # of the latest measurement in the running mean


class CostModel:
    """Seconds per unit of work for each stage, of each size that has run, else of any that has.

    Safe to call from several threads.
    """

    def __init__(self, config: ModelConfig, *, on_cpu: bool) -> None:
        self._config, self._lock = config, threading.Lock()
        self._prior = CPU_PRIOR if on_cpu else GPU_PRIOR
        self._rates: dict[tuple[str, Bucket | None], float] = {}

    def stages(self, params: SamplingParams) -> dict[str, float]:
        """Estimated seconds, stage by stage."""
        with self._lock:
            return {
                stage: units * self._rate(stage, params.bucket)
                for stage, units in work_of(self._config, params).items()
            }

    def total(self, params: SamplingParams) -> float:
        return sum(self.stages(params).values())

    def learn(self, params: SamplingParams, seconds: Mapping[str, float]) -> None:
        """What a finished video took."""
        with self._lock:
            for stage, units in work_of(self._config, params).items():
                if stage in seconds:
                    for key in ((stage, params.bucket), (stage, None)):
                        measured = seconds[stage] / units
                        mean = self._rates.get(key, measured)
                        self._rates[key] = mean + WEIGHT_OF_NEWS * (measured - mean)

    def _rate(self, stage: str, bucket: Bucket) -> float:
        own = self._rates.get((stage, bucket))
        return own if own is not None else self._rates.get((stage, None), self._prior[stage])


def work_of(config: ModelConfig, params: SamplingParams) -> dict[str, float]:
    """Units of work: prompts, the blocks' FLOPs, pixels to decode and pixels to write."""
    bucket = params.bucket
    passes = 2 if params.uses_cfg else 1
    pixels = float(bucket.height * bucket.width * bucket.num_frames)
    return {
        "encode": passes,
        "denoise": float(passes * params.num_inference_steps * config.dit.flops_per_step(bucket)),
        "decode": pixels,
        "write": pixels,
    }


def remaining(stages: Mapping[str, float], stage: str, done: int, total: int) -> float:
    """Estimated seconds left of a video that is in `stage`, with `done` of `total` steps or tiles behind it.

    A stage without an estimate, such as loading engines, comes before all that have one.
    """
    names = list(stages)
    at = names.index(stage) if stage in names else 0
    later = sum(stages[name] for name in names[at + (stage in names) :])
    return later + stages.get(stage, 0.0) * (1 - done / max(total, 1))
