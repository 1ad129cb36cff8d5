"""A whole model on disk: its configs, its fingerprint, and its four networks loaded from it."""

import hashlib
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from hyvideo_rt.config import DiTConfig, ModelConfig
from hyvideo_rt.kernels.fp8 import E4M3
from hyvideo_rt.kernels.ops import REFERENCE, Ops, in_8_bits
from hyvideo_rt.models.clip import ClipTextEncoder
from hyvideo_rt.models.dit import HunyuanVideoDiT, block_weights
from hyvideo_rt.models.linear import Fp8Linear, ScaledFp8Linear, linear_names, replace_linears
from hyvideo_rt.models.llama import LlamaEncoder
from hyvideo_rt.models.vae import CausalVAE, lay_out
from hyvideo_rt.weights.checkpoint_files import ModelFiles, locate, open_files
from hyvideo_rt.weights.layouts import KeyMap, Layout, Piece, original_from_diffusers, same_names
from hyvideo_rt.weights.loading import check_tensors, load_into
from hyvideo_rt.weights.tensor_files import TensorSource

SKIPPED_LAYERS = 2  # of the LLM, at its end
LLM_PREFIXES = ("language_model.model.", "model.language_model.", "model.", "")
LLM_IGNORED = (  # what a whole LLaVA or causal LM holds besides
    r"(language_model\.)?lm_head\.weight",
    r"(model\.)?vision_tower\..*",
    r"(model\.)?multi_modal_projector\..*",
    r".*\.rotary_emb\.inv_freq",
)
CLIP_IGNORED = (  # what a whole CLIP holds besides
    r"vision_model\..*",
    r"(visual|text)_projection\.weight",
    r"logit_scale",
    r"(text_model\.)?embeddings\.position_ids",
)
Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Checkpoint:
    """An opened model: all headers and configs are read and valid, no data is."""

    name: str  # the folder's or the hub's
    files: ModelFiles

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        dit_weight: Path | None = None,
        load_key: str = "module",
        revision: str | None = None,
    ) -> "Checkpoint":
        """A local folder in the original or diffusers' layout, or a hub id with the 40 digits of a revision.

        `dit_weight` is another DiT with original names, a file or its folder; `load_key` the entry, module
        or ema, of a `.pt` that has both. Raises WeightsError for what is missing, malformed, unsafe or of
        another model, InvalidRequest for arguments that make no sense.
        """
        folder = locate(path, revision)
        name = str(path) if revision else folder.resolve().name
        return cls(name, open_files(folder, dit_weight, load_key))

    @property
    def layout(self) -> Layout:
        return self.files.layout

    @property
    def config(self) -> ModelConfig:
        return self.files.config

    @property
    def llm_tokenizer(self) -> Path:
        """The folder that holds tokenizer.json."""
        return self.files.llm_tokenizer

    @property
    def clip_tokenizer(self) -> Path:
        """The folder that holds tokenizer.json, or vocab.json and merges.txt."""
        return self.files.clip_tokenizer

    @property
    def component_bytes(self) -> dict[str, int]:
        """Bytes of all stored tensors of dit, vae, llm and clip, those that are never loaded included."""
        return {component: source.nbytes for component, source in self.files.sources.items()}

    @property
    def in_8_bits(self) -> bool:
        """The DiT, or a part of it, is stored so."""
        return any(spec.dtype == E4M3 for spec in self.files.sources["dit"].specs.values())

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of configs, tensor names, shapes, dtypes, file sizes and the first row of every tensor.

        Two fine-tunes of one model differ in it, and so do two layouts and two ways to cut shards of one.
        It does not notice a change of values in other rows alone, and does not cover the tokenizers.
        """
        digest = hashlib.sha256(repr(self.config).encode())
        for component, source in sorted(self.files.sources.items()):
            for file in source.files:
                digest.update(f"{component} {file.size_bytes} {file.header_digest}".encode())
            for name, spec in sorted(source.specs.items()):
                digest.update(f"{name} {spec}".encode())
                digest.update(_first_row(source, name))
        return digest.hexdigest()

    def networks(self, skip_layers: int = SKIPPED_LAYERS) -> dict[str, nn.Module]:
        """dit, vae, llm and clip on the meta device."""
        with torch.device("meta"):
            return {
                "dit": HunyuanVideoDiT(self.config.dit),
                "vae": CausalVAE(self.config.vae),
                "llm": LlamaEncoder(self.config.llm, skip_layers),
                "clip": ClipTextEncoder(self.config.clip),
            }

    def check(self, skip_layers: int = SKIPPED_LAYERS) -> None:
        """Raise WeightsError unless all four networks could be loaded; reads no data."""
        for component, network in self.networks(skip_layers).items():
            keys, ignore = self.keys(component, network)
            check_tensors(network, self.files.sources[component], keys, ignore=ignore)

    def load_dit(
        self,
        device: torch.device | str,
        dtype: torch.dtype,
        fp8: bool = False,
        wide: Collection[str] = (),
        ops: Ops = REFERENCE,
        fp8_products: bool = False,
    ) -> HunyuanVideoDiT:
        """`fp8` keeps the weights of the blocks in E4M3; a checkpoint of another dtype is quantised.

        wide names layers of the blocks that stay in `dtype` all the same, such as `img_mlp.fc2`. With
        `fp8_products` the others multiply in 8 bits, too.
        """
        dit = empty_dit(self.config.dit, ops, fp8=fp8, wide=wide, fp8_products=fp8_products)
        return self._fill(dit, "dit", device, dtype)

    def load_vae(self, device: torch.device | str, dtype: torch.dtype, ops: Ops = REFERENCE) -> CausalVAE:
        with torch.device("meta"):
            vae = CausalVAE(self.config.vae, ops)
        return lay_out(self._fill(vae, "vae", device, dtype))

    def load_llm(
        self, device: torch.device | str, dtype: torch.dtype, skip_layers: int = SKIPPED_LAYERS
    ) -> LlamaEncoder:
        """The last `skip_layers` layers are neither built nor read."""
        with torch.device("meta"):
            llm = LlamaEncoder(self.config.llm, skip_layers)
        return self._fill(llm, "llm", device, dtype)

    def load_clip(self, device: torch.device | str, dtype: torch.dtype) -> ClipTextEncoder:
        with torch.device("meta"):
            clip = ClipTextEncoder(self.config.clip)
        return self._fill(clip, "clip", device, dtype)

    def keys(self, component: str, module: nn.Module) -> tuple[KeyMap, tuple[str, ...]]:
        """Where the tensors of our network lie in the files, and patterns of what else may lie there."""
        names, stored = module.state_dict(), self.files.sources[component].specs
        if component == "dit":
            if self.files.dit_layout == "diffusers":
                return original_from_diffusers(self.config.dit), ()
            return same_names(names), ()
        if component == "vae":
            prefix = "vae." if any(name.startswith("vae.") for name in stored) else ""
            return same_names(names, prefix), (r"(?!vae\.).*",) if prefix else ()
        if component == "clip":
            bare = "embeddings.token_embedding.weight" in stored  # as transformers 5 writes it
            prefix = "text_model." if bare else ""
            return {name: (Piece(name.removeprefix(prefix)),) for name in names}, CLIP_IGNORED
        prefix = _llm_prefix(stored)
        built, total = len(module.layers), self.config.llm.num_layers  # type: ignore[arg-type]
        unbuilt = (rf"{re.escape(prefix)}layers\.{i}\..*" for i in range(built, total))
        return same_names(names, prefix), (*LLM_IGNORED, *unbuilt)

    def _fill(
        self, module: Network, component: str, device: torch.device | str, dtype: torch.dtype
    ) -> Network:
        keys, ignore = self.keys(component, module)
        load_into(module, self.files.sources[component], keys, device=device, dtype=dtype, ignore=ignore)
        return module


def empty_dit(
    config: DiTConfig, ops: Ops, *, fp8: bool, wide: Collection[str] = (), fp8_products: bool = False
) -> HunyuanVideoDiT:
    """The network of `load_dit` on the meta device."""
    fused = fp8_products and not wide  # a wide layer reads no Rows: then every other one makes its own
    with torch.device("meta"):
        dit = HunyuanVideoDiT(config, ops, block_ops=in_8_bits(ops) if fused else ops)
        for block in (*dit.double_blocks, *dit.single_blocks) if fp8 else ():
            names = [name for name in linear_names(block) if name not in wide]
            inside = [name for name in names if fp8_products and f"{name}.weight" in block_weights(block)]
            replace_linears(block, partial(ScaledFp8Linear, quantise=ops.quantise_rows), inside)
            replace_linears(block, Fp8Linear, [name for name in names if name not in inside])
    return dit


def _llm_prefix(names: Iterable[str]) -> str:
    """What precedes a Llama's names, by the program that saved it."""
    found = set(names)
    return next((prefix for prefix in LLM_PREFIXES if f"{prefix}embed_tokens.weight" in found), "")


def _first_row(source: TensorSource, name: str) -> bytes:
    spec = source.specs[name]
    if not spec.shape or 0 in spec.shape:
        return b""
    row = torch.empty((1, *spec.shape[1:]), dtype=spec.dtype)
    source.read_rows(name, 0, 1, row)
    return row.view(-1).view(torch.uint8).numpy().tobytes()
