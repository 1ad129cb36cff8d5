"""The parts of the GPU's suite, most valuable first, each with the seconds it is expected to take on an H100.

A result has the name under which `bench/results/<device>/` keeps it: to copy the folder is to publish it. Of
several `steps*.json` the first by name has the row that counts.
"""

from dataclasses import dataclass

LARGE, SMALL = "720x1280x129", "544x960x129"
LONGEST_S = 570  # of a machine that is lent for ten minutes a command
Words = tuple[str, ...]


@dataclass(frozen=True)
class Part:
    """command: a module and its flags, in a Python of its own, from the root of the checkout.

    The word after --out or --junitxml is the name of its result; {attention} stands for the one that was
    chosen. small is what a rehearsal runs instead; empty where only a GPU can.
    """

    name: str
    expected_s: int
    command: Words
    small: Words

    @property
    def limit_s(self) -> int:
        """Twice what is expected: compilers and attention with a mask differ from release to release."""
        return min(LONGEST_S, 2 * self.expected_s + 30)


def _tests(result: str, *files: str) -> Words:
    return ("pytest", "-q", "-rs", "-m", "gpu", "--junitxml", result, *files)


def _rehearsed_tests(result: str) -> Words:
    return ("pytest", "-q", "--junitxml", result, "tests/bench/test_timing.py")


def _ladder(result: str, stage: str, size: str, runs: int, *rungs: str) -> Words:
    """The last rungs are lost first; the ratios are to the first one."""
    words = ("hyvideo_rt.bench.steps", "--stages", stage, "--sizes", size, "--runs", str(runs))
    return (*words, "--rungs", *rungs, "--attention", "{attention}", "--out", result)


KERNEL_TESTS = tuple(
    f"tests/kernels/test_{name}_triton.py"
    for name in ("modulate", "gelu", "quantise", "upsample", "group_norm", "rope")
)
NETWORK_TESTS = (
    "tests/test_pipeline_gpu.py",
    "tests/test_fp8_products.py",
    "tests/test_attention_choice.py",
    "tests/models/test_linear.py",
    "tests/weights/test_loading.py",
    "tests/weights/test_rounding.py",
    "tests/test_doctor.py",
    "tests/tiny/test_render.py",
    "tests/tiny/test_training.py",
)
ENGINE_TESTS = ("tests/test_engine_set_gpu.py",)
PEERS = ("diffusers", "diffusers, compiled")
FEW = ("diffusers", "hyvideo_rt")  # of a rehearsal: nothing is compiled

PARTS = (
    Part(
        "correctness of kernels",
        90,
        _tests("correctness-kernels.xml", *KERNEL_TESTS),
        _rehearsed_tests("correctness-kernels.xml"),
    ),
    Part(
        "correctness of networks",
        60,
        _tests("correctness-networks.xml", *NETWORK_TESTS),
        _rehearsed_tests("correctness-networks.xml"),
    ),
    Part(  # five rounds, as a verdict needs: 23 s each, or 48 if diffusers' mask costs it the fast kernels
        "step at 544x960x129",
        250,
        _ladder("steps-544x960x129.json", "denoise", SMALL, 5, *PEERS, "{attention} attention"),
        _ladder("steps-64x64x17.json", "denoise", "64x64x17", 2, *FEW),
    ),
    Part(  # two rounds of 130 s, or 250
        "step at 720x1280x129",
        420,
        _ladder(
            "steps-720x1280x129.json",
            *("denoise", LARGE, 2, "diffusers", "{attention} attention", "diffusers, compiled", "xDiT"),
            *("fp8 products", "fp8 attention", "fp8 products and attention"),
        ),
        _ladder("steps-64x96x17.json", "denoise", "64x96x17", 2, *FEW),
    ),
    Part(
        "other steps at 544x960x129",
        335,
        _ladder(
            "steps-544x960x129_more.json",
            *("denoise", SMALL, 2, "diffusers", "xDiT", "hyvideo_rt", "Triton kernels", "cudnn attention"),
            *("fp8 products", "fp8 attention", "fp8 products and attention", "cudnn fp8 attention"),
            "sage attention",
            *("engines of inductor", "engines of tensorrt", "engines of tensorrt_rtx"),
        ),
        _ladder("steps-64x64x17_more.json", "denoise", "64x64x17", 2, *FEW),
    ),
    Part(
        "kernels",
        120,
        ("hyvideo_rt.bench.kernels", "--runs", "5", "--out", "kernels.json"),
        ("hyvideo_rt.bench.kernels", "--runs", "1", "--out", "kernels.json"),
    ),
    Part(  # two rounds of 55 s
        "decode at 720x1280x129",
        210,
        _ladder(
            "steps-720x1280x129_decode.json",
            *("decode", LARGE, 2, "diffusers", "Triton kernels", "diffusers, compiled"),
        ),
        _ladder("steps-64x96x17_decode.json", "decode", "64x96x17", 2, *FEW),
    ),
    Part(
        "quality",
        120,
        ("hyvideo_rt.bench.quality", "--prompts", "60", "--each", "0", "--out", "quality.json"),
        (
            *("hyvideo_rt.bench.quality", "--prompts", "2", "--each", "0"),
            *("--settings", "8-bit products", "--out", "quality.json"),
        ),
    ),
    Part(  # two rounds of 50 s
        "decode at 544x960x129",
        250,
        _ladder(
            "steps-544x960x129_decode.json",
            *("decode", SMALL, 2, *PEERS, "hyvideo_rt", "Triton kernels", "engines of inductor"),
        ),
        _ladder("steps-64x64x17_decode.json", "decode", "64x64x17", 2, *FEW),
    ),
    Part(
        "whole video at 544x960x129",
        380,
        ("hyvideo_rt.bench.request", "--size", SMALL, "--attention", "{attention}", "--out", "request.json"),
        ("hyvideo_rt.bench.request", "--steps", "4", "--out", "request.json"),
    ),
    Part(
        "memory",
        140,
        (
            *("hyvideo_rt.bench.footprint", "--sizes", SMALL, LARGE),
            *("--attention", "{attention}", "--out", "footprint.json"),
        ),
        (),
    ),
    Part(
        "correctness of engines",
        150,
        _tests("correctness-engines.xml", *ENGINE_TESTS),
        _rehearsed_tests("correctness-engines.xml"),
    ),
    Part(
        "engines",
        240,
        ("hyvideo_rt.bench.engines", "--gpu", "--out", "engines.json"),
        ("hyvideo_rt.bench.engines", "--runs", "2", "--sizes", "64x64x17", "--out", "engines.json"),
    ),
    Part(
        "step from engines at 720x1280x129",
        210,
        _ladder("steps-720x1280x129_engines.json", "denoise", LARGE, 2, "diffusers", "engines of inductor"),
        _ladder("steps-64x96x17_engines.json", "denoise", "64x96x17", 2, *FEW),
    ),
)
