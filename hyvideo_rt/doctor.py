"""What this machine can run, what is missing and how to get it.

Only the standard library is imported at the top, and each check catches its own failure: the doctor must
answer above all where torch or PyAV is broken.
"""

import io
import os
import platform
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

GIB = 1024**3
OLDEST_PYTHON = (3, 11)
OLDEST_TORCH = (2, 11)
CUDA_TORCH = "pip install --force-reinstall torch; other builds: https://pytorch.org/get-started/locally"
PEERS = "pip install '.[bench]' in a checkout of this project"
TENSORRT = "pip install '.[tensorrt]' in a checkout of this project"
INSTRUCTION_SETS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_int8", "asimd", "bf16", "i8mm", "sve")
BF16_INSTRUCTION_SETS = {"avx512_bf16", "amx_bf16", "bf16"}
SMALL_BYTES = 1 * GIB  # videos and compiled artefacts are megabytes: below this a disk is about to be full
PUBLISHED_WEIGHTS_BYTES = 42 * 10**9  # DiT 25.6, LLM 15.0, VAE 1.0, CLIP 0.3 GB, as published
TINY_BYTES = 1 * GIB  # decoding 64x64x33 peaks at 0.37 GiB with a CPU build of torch; a CUDA build is larger
NVIDIA_SMI_TIMEOUT_S = 10.0  # it wakes the driver, which takes seconds on a machine without persistence mode


@dataclass(frozen=True)
class Finding:
    """One line of the report. A `remedy` says what to do; it is empty where there is nothing to do."""

    name: str
    status: Literal["ok", "warn", "missing"]
    detail: str
    remedy: str = ""


@dataclass(frozen=True)
class Library:
    """A Python package, looked up by the names it is distributed under and never imported."""

    name: str
    purpose: str
    distributions: tuple[str, ...]
    remedy: str


LIBRARIES = (
    Library("tokenizers", "splits prompts", ("tokenizers",), "pip install tokenizers"),
    Library("huggingface_hub", "downloads weights", ("huggingface_hub",), "pip install huggingface_hub"),
    Library("pillow", "writes pictures", ("pillow",), "pip install pillow"),
    Library("triton", "kernels on a GPU", ("triton",), "pip install triton"),
    Library(
        "flash-attention 3",
        "optional: attention on Hopper GPUs",
        ("fa3-fwd", "flash-attn-3"),
        "pip install fa3-fwd",
    ),
    Library(
        "tensorrt",
        "optional: engines for data-centre GPUs",
        ("tensorrt", "tensorrt-cu13", "tensorrt-cu12"),
        "pip install '.[tensorrt-classic]' in a checkout of this project",
    ),
    Library(
        "tensorrt_rtx",
        "optional: engines for RTX GPUs",
        ("tensorrt-rtx", "tensorrt-rtx-cu13", "tensorrt-rtx-cu12"),
        TENSORRT,
    ),
    Library(
        "onnxruntime", "optional: checks engines for GPUs that are elsewhere", ("onnxruntime",), TENSORRT
    ),
    Library(
        "openvino",
        "optional: engines for CPUs",
        ("openvino",),
        "pip install '.[openvino]' in a checkout of this project",
    ),
    Library(
        "transformers",
        "optional: a peer to compare with",
        ("transformers",),
        PEERS,
    ),
    Library("diffusers", "optional: a peer to compare with", ("diffusers",), PEERS),
)


def examine(output_folder: Path = Path("results"), cache_folder: Path = Path("~/.cache")) -> list[Finding]:
    """Every check, in the order in which a broken one would hurt. Never raises."""
    checks: list[tuple[str, Callable[[], list[Finding]]]] = [
        ("python", _python),
        ("torch", _torch),
        ("gpu", _gpus),
        ("cpu", _cpu),
        ("memory", _memory),
        ("disk: output", lambda: _disk("output", output_folder, SMALL_BYTES, "choose another --save-path")),
        ("disk: cache", lambda: _disk("cache", cache_folder, SMALL_BYTES, "free some space there")),
        ("disk: weights", _weights_disk),
        ("video encoder", _encoder),
        ("recipe", _recipe),
        ("attention", lambda: _attention(cache_folder)),
        *((library.name, lambda library=library: _library(library)) for library in LIBRARIES),
    ]
    return [finding for name, check in checks for finding in _guarded(name, check)]


def format_findings(findings: Sequence[Finding]) -> str:
    """Aligned text, one line a finding, its remedy indented below."""
    width = max((len(finding.name) for finding in findings), default=0)
    lines = []
    for finding in findings:
        lines.append(f"{finding.status:<7}  {finding.name:<{width}}  {finding.detail}")
        if finding.remedy:
            lines.append(f"{'':<7}  {'':<{width}}    {finding.remedy}")
    return "\n".join(lines)


def _guarded(name: str, check: Callable[[], list[Finding]]) -> list[Finding]:
    """A check that fails is a finding too: a library that does not load, a file that cannot be read."""
    try:
        return check()
    except ModuleNotFoundError as error:
        return [Finding(name, "missing", str(error), f"pip install {str(error.name).partition('.')[0]}")]
    except Exception as error:
        detail = f"could not be examined: {type(error).__name__}: {error}"
        return [Finding(name, "warn", detail, "reinstall the package that this names")]


def _python() -> list[Finding]:
    version = platform.python_version()
    if sys.version_info >= OLDEST_PYTHON:
        return [Finding("python", "ok", f"{version}, {sys.executable}")]
    return [Finding("python", "warn", f"{version}; expected 3.11 or newer", "install a newer Python")]


def _torch() -> list[Finding]:
    import torch

    build = _torch_build()
    if tuple(map(int, torch.__version__.split(".")[:2])) >= OLDEST_TORCH:
        return [Finding("torch", "ok", f"{torch.__version__}, {build}")]
    wanted = ".".join(map(str, OLDEST_TORCH))
    detail = f"{torch.__version__}, {build}; expected {wanted} or newer"
    return [Finding("torch", "warn", detail, f"pip install 'torch>={wanted}'")]


def _torch_build() -> str:
    import torch

    return f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"


def _gpus() -> list[Finding]:
    """Each GPU that torch can use; or why there is none."""
    import torch

    drivers = _nvidia_smi()
    with warnings.catch_warnings(record=True) as complaints:
        warnings.simplefilter("always")
        usable = torch.cuda.is_available()
    if usable:
        return [_gpu(index, drivers) for index in range(torch.cuda.device_count())]
    if not drivers:
        advice = "the tiny model runs without; the published one needs an NVIDIA GPU: see `hyvideo-rt plan`"
        return [Finding("gpu", "missing", "no NVIDIA GPU", advice)]
    reasons = [str(complaint.message).splitlines()[0] for complaint in complaints] or [_torch_build()]
    detail = f"nvidia-smi shows {drivers[0]}, which this torch cannot use: {'; '.join(reasons)}"
    remedy = "update the NVIDIA driver" if torch.version.cuda else CUDA_TORCH
    return [Finding("gpu", "warn", detail, remedy)]


def _recipe() -> list[Finding]:
    """What `hyvideo-rt build` builds here."""
    import torch

    from hyvideo_rt.engines.recipes import recipe_for
    from hyvideo_rt.engines.target import device_name

    name = device_name(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    recipe = recipe_for(name)
    if recipe is None:
        detail = f"none for {name}: engines of inductor"
        return [Finding("recipe", "warn", detail, "write one: engines/recipes/, with what was measured")]
    basis = "measured" if "backend" in recipe.measured else "expected to be the best"
    return [Finding("recipe", "ok", f"{recipe.sku}: engines of {recipe.backend} in {recipe.dit}, {basis}")]


def _attention(cache_folder: Path) -> list[Finding]:
    """Which of the installed backends work; each is tried once, which can take a minute."""
    import torch

    from hyvideo_rt.attention import Setting, choose_attention, installed, try_attention

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    setting, cache = Setting(device), cache_folder.expanduser() / "hyvideo-rt" / "attention.json"
    verdicts = [try_attention(name, setting, cache) for name in installed()]
    working = [verdict.backend for verdict in verdicts if not verdict.reason]
    failed = [f"{verdict.backend}: {verdict.reason}" for verdict in verdicts if verdict.reason]
    best, _ = choose_attention("auto", setting, cache)
    detail = f"auto takes {best}; {', '.join(working)} work"
    if device.type == "cpu":
        return [Finding("attention", "ok", detail)]
    return [Finding("attention", "ok", "; ".join([detail, *failed]))]


def _gpu(index: int, drivers: Sequence[str]) -> Finding:
    import torch

    name, (major, minor) = torch.cuda.get_device_name(index), torch.cuda.get_device_capability(index)
    free, total = torch.cuda.mem_get_info(index)
    driver = f", driver {drivers[0].rsplit(', ', 1)[-1]}" if drivers else ""
    detail = f"{name}, compute capability {major}.{minor}, {_gib(free)} of {_gib(total)} free{driver}"
    if _has_code_for((major, minor), torch.cuda.get_arch_list()):
        return Finding(f"gpu {index}", "ok", detail)
    detail += f"; this torch has code for {' '.join(torch.cuda.get_arch_list())} only"
    return Finding(f"gpu {index}", "warn", detail, CUDA_TORCH)


def _has_code_for(capability: tuple[int, int], archs: Sequence[str]) -> bool:
    """sm_86 runs on 8.6 and 8.9 but not on 9.0; the driver compiles compute_80 for all that is newer."""
    for arch in archs:
        kind, _, number = arch.partition("_")
        digits = int("".join(character for character in number if character.isdigit()))
        built = divmod(digits, 10)
        if built <= capability and (kind == "compute" or built[0] == capability[0]):
            return True
    return False


def _nvidia_smi() -> list[str]:
    """A line `name, memory, driver version` for each GPU; none without nvidia-smi or where it fails."""
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=NVIDIA_SMI_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return done.stdout.splitlines()


def _cpu() -> list[Finding]:
    fields = _cpuinfo(Path("/proc/cpuinfo").read_text())
    model = fields.get("model name") or platform.machine()
    flags = (fields.get("flags") or fields.get("Features", "")).split()
    present = [name for name in INSTRUCTION_SETS if name in flags]
    detail = f"{model}, {len(os.sched_getaffinity(0))} cores, {' '.join(present) or 'no vector extensions'}"
    if BF16_INSTRUCTION_SETS & set(present):
        return [Finding("cpu", "ok", detail)]
    return [
        Finding("cpu", "ok", f"{detail}; bf16 is emulated", "on the CPU, --precision fp32 is faster here")
    ]


def _cpuinfo(text: str) -> dict[str, str]:
    """The fields of the first core."""
    pairs = (line.split(":", 1) for line in text.strip().split("\n\n")[0].splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def _memory() -> list[Finding]:
    fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    total, available = (int(fields[key].split()[0]) * 1024 for key in ("MemTotal", "MemAvailable"))
    detail = f"{_gib(available)} of {_gib(total)} available"
    limit = _container_limit(Path("/sys/fs/cgroup"))
    if limit is not None:
        detail += f", this container may use {_gib(limit)}"
        available = min(available, limit)
    if available >= TINY_BYTES:
        return [Finding("memory", "ok", detail)]
    return [
        Finding(
            "memory", "warn", f"{detail}; expected {_gib(TINY_BYTES)} for the tiny model", "close programs"
        )
    ]


def _container_limit(cgroup: Path) -> int | None:
    """Bytes that this process's control group (version 2) may hold, if it is limited."""
    file = cgroup / "memory.max"
    limit = file.read_text().strip() if file.exists() else "max"
    return None if limit == "max" else int(limit)


def _weights_disk() -> list[Finding]:
    from huggingface_hub.constants import HF_HUB_CACHE

    needed = "for the published weights, set HF_HOME to a folder on a larger disk"
    return _disk("weights", Path(HF_HUB_CACHE), PUBLISHED_WEIGHTS_BYTES, needed)


def _disk(name: str, folder: Path, needed_bytes: int, remedy: str) -> list[Finding]:
    """Room and permission in `folder` or, where it is not there yet, in the folder that will hold it."""
    folder = folder.expanduser().absolute()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    detail = f"{_gib(free)} free in {folder}"
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        return [Finding(f"disk: {name}", "warn", f"{existing} is not a folder you may write to", remedy)]
    if free < needed_bytes:
        return [Finding(f"disk: {name}", "warn", f"{detail}; expected {_gib(needed_bytes)}", remedy)]
    return [Finding(f"disk: {name}", "ok", detail)]


def _encoder(codec: str = "libx264") -> list[Finding]:
    """Really encodes two frames: a PyAV built against a system FFmpeg may lack libx264."""
    import av

    version = f"PyAV {av.__version__}"
    try:
        num_bytes = _encode_two_frames(codec)
    except (av.FFmpegError, ValueError) as error:
        detail = f"{version} cannot encode with {codec}: {error}"
        return [
            Finding("video encoder", "missing", detail, "pip install --force-reinstall --only-binary av av")
        ]
    return [Finding("video encoder", "ok", f"{version}, {codec} encoded 2 frames to {num_bytes} bytes")]


def _encode_two_frames(codec: str) -> int:
    import av
    from av.video.stream import VideoStream

    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream(codec, rate=24)
        assert isinstance(stream, VideoStream)
        stream.height = stream.width = 64
        stream.pix_fmt = "yuv420p"
        for _ in range(2):
            container.mux(stream.encode(av.VideoFrame(64, 64, "yuv420p")))
        container.mux(stream.encode(None))
    return buffer.tell()


def _library(library: Library) -> list[Finding]:
    for distribution in library.distributions:
        try:
            version = metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
        return [Finding(library.name, "ok", f"{version} ({library.purpose})")]
    return [Finding(library.name, "missing", library.purpose, library.remedy)]


def _gib(size: float) -> str:
    return f"{size / GIB:.1f} GiB"
