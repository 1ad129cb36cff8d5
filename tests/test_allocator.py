"""Memory that one video has freed is there for the next."""

import resource
import sys

import pytest
import torch

from hyvideo_rt.buckets import Bucket
from hyvideo_rt.cli.model_choice import embedded_tiny
from hyvideo_rt.pipeline import Pipeline
from hyvideo_rt.sampling import SamplingParams

PARAMS = SamplingParams(Bucket(64, 64, 17), seed=0, num_inference_steps=2)


def _faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_a_video_after_others_takes_no_fresh_pages() -> None:
    """Without `keep_freed_memory` each takes about twenty thousand."""
    pipeline = Pipeline.load(embedded_tiny(), torch.device("cpu"))
    taken = []
    for _ in range(6):
        before = _faults()
        pipeline.generate("a red circle moves right", PARAMS)
        taken.append(_faults() - before)
    assert min(taken[2:]) < 500, taken
