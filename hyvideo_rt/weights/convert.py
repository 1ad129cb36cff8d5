"""A checkpoint written anew in either layout, as safetensors, tensor by tensor.

The original layout is upstream's tree with two differences: weights are safetensors, in shards of at most
5 GB, and the DiT has a config.json beside it. `Checkpoint.open` reads both.
"""

import contextlib
import json
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hyvideo_rt.errors import OutputError, WeightsError
from hyvideo_rt.weights.checkpoint import Checkpoint
from hyvideo_rt.weights.checkpoint_files import ORIGINAL_DIT, ORIGINAL_VAE
from hyvideo_rt.weights.layouts import KeyMap, Layout, Piece, diffusers_from_original, same_names
from hyvideo_rt.weights.loading import read_pieces
from hyvideo_rt.weights.model_configs import MODEL_INDEX, SCHEDULER_JSON, dit_json, vae_json
from hyvideo_rt.weights.safetensors_files import write_safetensors
from hyvideo_rt.weights.tensor_files import TensorSource, TensorSpec
from hyvideo_rt.weights.text_configs import clip_json, llm_json

SHARD_BYTES = 5_000_000_000
WEIGHTS = {  # of each component, or the common name of its shards
    "original": {
        "dit": ORIGINAL_DIT,
        "vae": ORIGINAL_VAE,
        "llm": Path("text_encoder", "model.safetensors"),
        "clip": Path("text_encoder_2", "model.safetensors"),
    },
    "diffusers": {
        "dit": Path("transformer", "diffusion_pytorch_model.safetensors"),
        "vae": Path("vae", "diffusion_pytorch_model.safetensors"),
        "llm": Path("text_encoder", "model.safetensors"),
        "clip": Path("text_encoder_2", "model.safetensors"),
    },
}
TOKENIZERS = {"original": ("text_encoder", "text_encoder_2"), "diffusers": ("tokenizer", "tokenizer_2")}
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
)
Progress = Callable[[int, int], None]  # bytes written, bytes in all


@dataclass(frozen=True)
class _Job:
    """One component: the tensors to write, and the pieces of stored tensors that each is made of."""

    path: Path  # below the target
    source: TensorSource
    keys: KeyMap
    specs: dict[str, TensorSpec]

    @property
    def nbytes(self) -> int:
        return sum(spec.nbytes for spec in self.specs.values())


def convert(
    source: Checkpoint,
    target: Path,
    layout: Layout,
    *,
    shard_bytes: int = SHARD_BYTES,
    progress: Progress | None = None,
) -> None:
    """Write `source` to the folder `target`, which must not exist or be empty.

    All is checked first and written beside the target, which then appears whole; whatever goes wrong, it
    stays as it was. Values and dtypes are kept bit by bit. Host memory: one tensor. Raises WeightsError for
    an incomplete or 8-bit source, OutputError for what cannot be written.
    """
    jobs = _plan(source, layout)
    with new_folder(target) as staging:
        _check_space(staging, sum(job.nbytes for job in jobs))
        _write(source, staging, layout, jobs, shard_bytes, progress)


@contextlib.contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A folder to write to, beside the target, which it becomes at the end; whatever goes wrong, it is gone.

    Raises OutputError for a target that has something in it, and for what cannot be written.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise OutputError(f"{target} exists and is not an empty folder\n  choose another target")
    target = target.absolute()
    staging = target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")
    try:
        staging.mkdir(parents=True)
        yield staging
        staging.rename(target)
    except OSError as error:
        raise OutputError(f"{target} could not be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _plan(source: Checkpoint, layout: Layout) -> list[_Job]:
    if source.in_8_bits:
        raise WeightsError(
            f"{source.files.sources['dit'].label}: got 8-bit weights, expected the full ones to convert\n"
            f"  they are rounded: convert the bf16 checkpoint, and load its result with fp8"
        )
    source.check(skip_layers=0)
    return [
        _job(WEIGHTS[layout][component], source.files.sources[component], keys)
        for component, keys in _key_maps(source, layout).items()
    ]


def _key_maps(source: Checkpoint, layout: Layout) -> dict[str, KeyMap]:
    """Our names are the original's, and those of diffusers too but for the DiT."""
    networks = source.networks(skip_layers=0)
    keys = {component: source.keys(component, network)[0] for component, network in networks.items()}
    if layout == "diffusers":
        stored = source.files.sources["dit"].specs
        same = source.files.dit_layout == "diffusers"
        keys["dit"] = same_names(stored) if same else diffusers_from_original(source.config.dit)
    return keys


def _job(path: Path, source: TensorSource, keys: KeyMap) -> _Job:
    return _Job(path, source, keys, {name: _spec(source, pieces) for name, pieces in keys.items()})


def _spec(source: TensorSource, pieces: tuple[Piece, ...]) -> TensorSpec:
    specs = [source.specs[piece.name] for piece in pieces]
    rows = [(s.shape[0] if p.stop is None else p.stop) - p.start for p, s in zip(pieces, specs, strict=True)]
    dtype = reduce(torch.promote_types, (spec.dtype for spec in specs))
    return TensorSpec((sum(rows), *specs[0].shape[1:]), dtype)


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(f"it needs {needed / 1e6:.0f} MB and the disk has {free / 1e6:.0f} MB free")


def _write(
    source: Checkpoint,
    folder: Path,
    layout: Layout,
    jobs: list[_Job],
    shard_bytes: int,
    progress: Progress | None,
) -> None:
    for name, content in _configs(source, layout).items():
        _write_json(folder / name, content)
    tokenizers = (source.llm_tokenizer, source.clip_tokenizer)
    for tokenizer, place in zip(tokenizers, TOKENIZERS[layout], strict=True):
        _copy_tokenizer(tokenizer, folder / place)
    done, total = 0, sum(job.nbytes for job in jobs)
    for job in jobs:
        for path, specs in _shards(job, folder, shard_bytes):
            write_safetensors(path, specs, _tensors(job, specs), {"format": "pt"})
            done += sum(spec.nbytes for spec in specs.values())
            if progress:
                progress(done, total)


def _shards(job: _Job, folder: Path, shard_bytes: int) -> Iterator[tuple[Path, dict[str, TensorSpec]]]:
    """Files of a component with what goes into each; their index is written first."""
    shards: list[dict[str, TensorSpec]] = [{}]
    free = shard_bytes
    for name, spec in job.specs.items():
        if spec.nbytes > free and shards[-1]:
            shards.append({})
            free = shard_bytes
        shards[-1][name] = spec
        free -= spec.nbytes
    path = folder / job.path
    if len(shards) == 1:
        yield path, _aligned(shards[0])
        return
    paths = [path.with_stem(f"{path.stem}-{i:05}-of-{len(shards):05}") for i in range(1, len(shards) + 1)]
    weight_map = {name: file.name for file, shard in zip(paths, shards, strict=True) for name in shard}
    index = {"metadata": {"total_size": job.nbytes}, "weight_map": weight_map}
    _write_json(path.with_name(path.name + ".index.json"), index)
    yield from zip(paths, map(_aligned, shards), strict=True)


def _aligned(shard: dict[str, TensorSpec]) -> dict[str, TensorSpec]:
    """Wide dtypes first, so that each tensor starts at a multiple of its element size."""
    return dict(sorted(shard.items(), key=lambda item: -item[1].dtype.itemsize))


def _tensors(job: _Job, specs: Mapping[str, TensorSpec]) -> Iterator[Tensor]:
    for name, spec in specs.items():
        tensor = torch.empty(spec.shape, dtype=spec.dtype)
        read_pieces(job.source, job.keys[name], tensor)
        yield tensor


def _configs(source: Checkpoint, layout: Layout) -> dict[Path, dict[str, Any]]:
    config, weights = source.config, WEIGHTS[layout]
    configs = {
        weights["dit"].with_name("config.json"): dit_json(config.dit, layout),
        weights["vae"].with_name("config.json"): vae_json(config.vae, layout),
        weights["llm"].with_name("config.json"): llm_json(config.llm),
        weights["clip"].with_name("config.json"): clip_json(config.clip),
    }
    if layout == "diffusers":
        configs[Path("model_index.json")] = MODEL_INDEX
        configs[Path("scheduler", "scheduler_config.json")] = SCHEDULER_JSON
    return configs


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _copy_tokenizer(source: Path, target: Path) -> None:
    target.mkdir(exist_ok=True)
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
