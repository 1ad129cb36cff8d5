"""Where the parts of a model lie on disk: the two layouts, local or from the hub.

`diffusers` is a folder with model_index.json; `original` is upstream's `ckpts` tree. Pickles (`.pt`, `.bin`)
are opened in the original layout only and never downloaded.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from hyvideo_rt.config import DiTConfig, ModelConfig
from hyvideo_rt.errors import InvalidRequest, WeightsError
from hyvideo_rt.kernels.fp8 import E4M3
from hyvideo_rt.weights.layouts import Layout
from hyvideo_rt.weights.model_configs import (
    check_model_index,
    infer_dit_config,
    read_dit_config,
    read_vae_config,
)
from hyvideo_rt.weights.pickle_files import PickleFile
from hyvideo_rt.weights.safetensors_files import SafetensorsFile, open_sharded
from hyvideo_rt.weights.tensor_files import TensorFile, TensorSource
from hyvideo_rt.weights.text_configs import read_clip_config, read_llm_config

ORIGINAL_MODEL = "hunyuan-video-t2v-720p"
ORIGINAL_DIT = Path(ORIGINAL_MODEL, "transformers", "mp_rank_00_model_states.safetensors")
ORIGINAL_VAE = Path(ORIGINAL_MODEL, "vae", "pytorch_model.safetensors")
LOAD_KEYS = ("module", "ema")
HUB_FILES = ["*.safetensors", "*.json", "*.txt"]


@dataclass(frozen=True)
class Dit:
    """The DiT's tensors, whose names they have, and its config."""

    source: TensorSource
    layout: Layout
    config: DiTConfig


@dataclass(frozen=True)
class ModelFiles:
    """An opened checkpoint: sources by component (dit, vae, llm, clip), configs and tokenizer folders."""

    layout: Layout
    dit_layout: Layout  # differs from `layout` where another DiT file was asked for
    config: ModelConfig
    sources: dict[str, TensorSource]
    llm_tokenizer: Path
    clip_tokenizer: Path


def locate(path: str | Path, revision: str | None) -> Path:
    """The local folder `path`, or the download of the hub model `org/name` at a pinned revision."""
    if Path(path).exists():
        if revision is not None:
            raise InvalidRequest(
                f"got the revision {revision} for the local {path}; only hub models have one"
            )
        return Path(path)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", str(path)):
        raise WeightsError(f"got no folder {path}, expected a model's folder or a hub id such as org/name")
    if not re.fullmatch(r"[0-9a-f]{40}", revision or ""):
        raise InvalidRequest(
            f"got the revision {revision} for {path}, no folder here; a model of the hub needs a pinned one\n"
            f"  give the 40 hexadecimal digits of the commit, as its page shows them"
        )
    return _download(str(path), revision)


def open_files(folder: Path, dit_weight: Path | None, load_key: str) -> ModelFiles:
    """Read every header and config of the model in `folder`, and no data."""
    if load_key not in LOAD_KEYS:
        raise InvalidRequest(f"got the load key {load_key!r}, expected one of {', '.join(LOAD_KEYS)}")
    if (folder / "model_index.json").is_file():
        return _open_diffusers(folder, dit_weight, load_key)
    if (folder / ORIGINAL_MODEL).is_dir():
        return _open_original(folder, dit_weight, load_key)
    raise WeightsError(
        f"{folder}: got no model; expected model_index.json (diffusers) or {ORIGINAL_MODEL}/ (original)\n"
        f"  point to the folder that holds one of them"
    )


def _download(repo: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download  # only for those who download

    try:
        return Path(snapshot_download(repo, revision=revision, allow_patterns=HUB_FILES))
    except (OSError, ValueError) as error:
        reason = str(error).strip().split("\n")[0]
        raise WeightsError(
            f"{repo} at {revision} is not in the hub's cache and could not be downloaded: {reason}\n"
            f"  check the name, the revision and the network, or give a local folder"
        ) from error


def _open_diffusers(folder: Path, dit_weight: Path | None, load_key: str) -> ModelFiles:
    check_model_index(folder / "model_index.json")
    transformer, vae = folder / "transformer", folder / "vae"
    if dit_weight is None:
        source = _open_safetensors(transformer / "diffusion_pytorch_model.safetensors")
        dit = Dit(source, "diffusers", read_dit_config(transformer / "config.json", "diffusers"))
    else:
        dit = _open_original_dit(dit_weight, load_key)
    sources = {
        "dit": dit.source,
        "vae": _open_safetensors(vae / "diffusion_pytorch_model.safetensors"),
        "llm": _open_safetensors(folder / "text_encoder" / "model.safetensors"),
        "clip": _open_safetensors(folder / "text_encoder_2" / "model.safetensors"),
    }
    config = _read_configs(dit, vae, folder, "diffusers")
    return ModelFiles("diffusers", dit.layout, config, sources, folder / "tokenizer", folder / "tokenizer_2")


def _open_original(folder: Path, dit_weight: Path | None, load_key: str) -> ModelFiles:
    llm, clip, vae = folder / "text_encoder", folder / "text_encoder_2", folder / ORIGINAL_VAE
    dit = _open_original_dit(dit_weight or (folder / ORIGINAL_DIT).parent, load_key)
    sources = {
        "dit": dit.source,
        "vae": _open_either(vae, vae.with_suffix(".pt"), "state_dict"),
        "llm": _open_safetensors(llm / "model.safetensors"),
        "clip": _open_either(clip / "model.safetensors", clip / "pytorch_model.bin", "state_dict"),
    }
    config = _read_configs(dit, vae.parent, folder, "original")
    return ModelFiles("original", dit.layout, config, sources, llm, clip)


def _read_configs(dit: Dit, vae: Path, folder: Path, layout: Layout) -> ModelConfig:
    config = ModelConfig(
        dit=dit.config,
        vae=read_vae_config(vae / "config.json", layout),
        llm=read_llm_config(folder / "text_encoder" / "config.json"),
        clip=read_clip_config(folder / "text_encoder_2" / "config.json"),
    )
    for what, got, expected in (
        ("latents", config.vae.latent_channels, (config.dit.in_channels, config.dit.out_channels)),
        ("states of the LLM", config.llm.hidden_size, (config.dit.text_dim,)),
        ("vectors of CLIP", config.clip.hidden_size, (config.dit.pooled_dim,)),
    ):
        if {got} != set(expected):
            raise WeightsError(
                f"{folder}: got {what} of size {got}, its transformer expects {expected[0]}\n"
                f"  these networks do not belong together: take all of one model"
            )
    return config


def _open_original_dit(path: Path, load_key: str) -> Dit:
    """A file, or a folder where it has one of upstream's names; shards by the name they have in common."""
    source = _open_dit_file(_find_dit(path) if path.is_dir() else path, load_key)
    if "x_embedder.proj.weight" in source.specs:
        raise WeightsError(
            f"{source.label}: got a transformer with diffusers' names, expected the original ones\n"
            f"  point to the whole diffusers folder instead, the one with model_index.json"
        )
    beside = source.files[0].path.parent / "config.json"
    config = read_dit_config(beside, "original") if beside.is_file() else infer_dit_config(source)
    return Dit(source, "original", config)


def _find_dit(folder: Path) -> Path:
    stem = ORIGINAL_DIT.stem
    names = (f"{stem}.safetensors", f"{stem}.pt", f"{stem}_fp8.pt")
    for name in names:
        if (folder / name).is_file() or (folder / f"{name}.index.json").is_file():
            return folder / name
    raise WeightsError(f"{folder}: got no transformer, expected one of {', '.join(names)}")


def _open_dit_file(path: Path, load_key: str) -> TensorSource:
    """8-bit weights come with their scales in a second file."""
    if path.suffix not in (".pt", ".bin"):
        return _open_safetensors(path)
    files: list[TensorFile] = [_open_pickle(path, LOAD_KEYS, load_key)]
    if any(spec.dtype == E4M3 for spec in files[0].specs.values()):
        scales = path.with_name(f"{path.stem}_map.pt")
        if not scales.is_file():
            raise WeightsError(
                f"{path}: got fp8 weights without {scales.name}, which holds their scales\n"
                f"  download it into the same folder"
            )
        files.append(PickleFile(scales, suffix=".scale"))
    return TensorSource(files)


def _open_safetensors(path: Path) -> TensorSource:
    """`path`, or the shards that its index names."""
    index = path.with_name(path.name + ".index.json")
    if path.is_file():
        return TensorSource([SafetensorsFile(path)])
    if index.is_file():
        return open_sharded(index)
    raise WeightsError(
        f"{path.parent}: got neither {path.name} nor {index.name}\n  is the download complete?"
    )


def _open_either(path: Path, pickle: Path, wrapper: str) -> TensorSource:
    if pickle.is_file() and not path.is_file():
        return TensorSource([_open_pickle(pickle, (wrapper,), wrapper)])
    return _open_safetensors(path)


def _open_pickle(path: Path, wrappers: tuple[str, ...], key: str) -> PickleFile:
    if not path.is_file():
        raise WeightsError(f"{path}: got no such file, expected the weights of a network")
    return PickleFile(path, wrappers=wrappers, key=key)
