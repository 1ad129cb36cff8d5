"""Which attention works here: each library is tried once, in a process of its own, against fp64.

A library that was built for another GPU or another CUDA may not raise but end the process that calls it. The
verdict is kept in the user's cache for this GPU, driver, torch and version of the library.
`python -m hyvideo_rt.attention NAME DEVICE DTYPE HEAD_DIM` is that process.
"""

import functools
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from hyvideo_rt.errors import InvalidRequest
from hyvideo_rt.kernels.attention_backends import BACKENDS, Attend

AUTOMATIC = ("fa4", "fa3", "cudnn", "flash")  # in this order, where they work; else what torch chooses
TOKENS, HEADS = 1031, 3
ALLOWED_ERROR = {16: 0.01, 8: 0.1}  # relative, by bits: bf16 rounds to 0.004, E4M3 to 0.06
TRIAL_SECONDS = 300.0  # some compile their kernels


@dataclass(frozen=True)
class Setting:
    """Where attention is to run, and on what; the published DiT's by default."""

    device: torch.device
    dtype: torch.dtype = torch.bfloat16
    head_dim: int = 128


@dataclass(frozen=True)
class Verdict:
    """Empty `reason`: it works, with this relative error against fp64."""

    backend: str
    reason: str = ""
    relative_error: float | None = None


def choose_attention(asked: str, setting: Setting, cache: Path) -> tuple[str, Attend]:
    """The name and the function of what was asked for; for `auto` the fastest that rounds nothing away.

    Raises InvalidRequest for one that does not work here, with the reason.
    """
    if asked == "auto":
        asked = next(_working(setting, cache), "sdpa")
    elif verdict := try_attention(asked, setting, cache).reason:
        raise InvalidRequest(
            f"got --attention {asked}, which does not work here: {verdict}\n"
            f"  `hyvideo-rt doctor` lists those that do; auto takes the fastest of them"
        )
    return asked, BACKENDS[asked].load()


def try_attention(name: str, setting: Setting, cache: Path) -> Verdict:
    """From the cache, or by a trial. torch's own choice needs none."""
    backend, device = BACKENDS[name], setting.device
    if name in ("sdpa", "math"):
        return Verdict(name)
    if device.type != "cuda":
        return Verdict(name, "it needs a CUDA GPU")
    major, minor = torch.cuda.get_device_capability(device)
    first, last = backend.capability
    if not first <= major <= last:
        return Verdict(name, f"it has no kernels for compute capability {major}.{minor}")
    if backend.module and importlib.util.find_spec(backend.module.partition(".")[0]) is None:
        return Verdict(name, f"it is not installed: pip install {backend.package}")
    known = _read(cache)
    key = _circumstances(name, setting)
    if key not in known:
        known[key] = asdict(_trial(name, setting))
        _write(cache, known)
    return Verdict(**known[key])


def installed() -> Iterator[str]:
    """The names of those that torch brings or whose library is there."""
    for name, backend in BACKENDS.items():
        if not backend.module or importlib.util.find_spec(backend.module.partition(".")[0]):
            yield name


def _working(setting: Setting, cache: Path) -> Iterator[str]:
    return (name for name in AUTOMATIC if not try_attention(name, setting, cache).reason)


def _trial(name: str, setting: Setting) -> Verdict:
    words = (name, setting.device, str(setting.dtype).removeprefix("torch."), setting.head_dim)
    command = [sys.executable, "-m", "hyvideo_rt.attention", *map(str, words)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TRIAL_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return Verdict(name, f"its trial took longer than {TRIAL_SECONDS:.0f} s")
    if done.returncode != 0:
        last = (done.stderr.strip() or "it said nothing").splitlines()[-1]
        return Verdict(name, f"its trial ended with {done.returncode}: {last[:200]}")
    error, allowed = float(done.stdout), ALLOWED_ERROR[BACKENDS[name].bits]
    if not error <= allowed:  # NaN fails as well
        return Verdict(name, f"its relative error is {error:.1e}, allowed is {allowed:.1e}", error)
    return Verdict(name, "", error)


@torch.inference_mode()
def relative_error(attend: Attend, setting: Setting) -> float:
    """On random q, k, v with a shared key and a mean value, against fp64."""
    device, hd = setting.device, setting.head_dim
    generator = torch.Generator(device).manual_seed(0)
    random = functools.partial(torch.randn, generator=generator, device=device)
    q, k, v = random(3, 1, TOKENS, HEADS, hd)
    k, v = k + 2 * random(HEADS, hd), v + random(HEADS, hd)
    q, k, v = (x.to(setting.dtype) for x in (q, k / k.square().mean(-1, keepdim=True).sqrt(), v))
    heads = [x.double().transpose(1, 2) for x in (q, k, v)]
    exact = ((heads[0] @ heads[1].mT) * hd**-0.5).softmax(-1) @ heads[2]
    exact = exact.transpose(1, 2).flatten(2)
    return float((attend(q, k, v).double() - exact).norm() / exact.norm())


def _circumstances(name: str, setting: Setting) -> str:
    package = BACKENDS[name].package
    version = f" {importlib.metadata.version(package)}" if package else ""
    driver = Path("/proc/driver/nvidia/version")
    words = [f"{name}{version}", f"torch {torch.__version__}", torch.cuda.get_device_name(setting.device)]
    words.append(f"{setting.head_dim} x {setting.dtype}")
    return ", ".join([*words, driver.read_text().splitlines()[0]] if driver.exists() else words)


def _read(cache: Path) -> dict[str, dict[str, Any]]:
    """What is known; nothing where the file is missing or spoilt: trials fill it again."""
    try:
        known: dict[str, dict[str, Any]] = json.loads(cache.read_text())
    except (OSError, ValueError):
        return {}
    return known


def _write(cache: Path, known: dict[str, dict[str, Any]]) -> None:
    cache.parent.mkdir(parents=True, exist_ok=True)
    partial = cache.with_suffix(f".{os.getpid()}.partial")
    partial.write_text(json.dumps(known, indent=2) + "\n")
    partial.replace(cache)


if __name__ == "__main__":
    asked = Setting(torch.device(sys.argv[2]), getattr(torch, sys.argv[3]), int(sys.argv[4]))
    print(relative_error(BACKENDS[sys.argv[1]].load(), asked))
