"""The engines of a model, bound to the one copy of its weights, preset by preset.

An engine is chosen by what it computes on: blocks by the number of image tokens, the VAE's decoder by the
shape of a tile. Presets that agree in these share their engines.
"""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from hyvideo_rt.buckets import Bucket
from hyvideo_rt.config import ModelConfig
from hyvideo_rt.engines.backends import Run
from hyvideo_rt.engines.spec import MAX_TEXT, BackendName, Component, EngineSpec, Precision, digest
from hyvideo_rt.models.dit import Blocks, HunyuanVideoDiT, Rope, block_weights
from hyvideo_rt.models.linear import lay_transposed, linear_names
from hyvideo_rt.models.tiling import Tiling
from hyvideo_rt.models.vae import CausalVAE, VAEDecoding

LoadEngine = Callable[[EngineSpec], Run]


@dataclass(frozen=True)
class Target:
    """Of what kind engines are: who compiled them, for which device, and how they compute.

    wide names the layers that stay in bf16 in fp8 blocks; attention is as in EngineSpec.
    """

    backend: BackendName
    device: str
    dit: Precision
    vae: Precision
    wide: tuple[str, ...] = ()
    attention: str = ""


def specs_of(config: ModelConfig, bucket: Bucket, target: Target) -> tuple[EngineSpec, ...]:
    """Every engine that a video of this size needs."""
    frames, height, width = bucket.latent_shape
    tiles = sorted(set(Tiling.decode(config.vae).tile_shapes((frames, height, width))))
    return (
        block_spec("double_block", config, bucket, target),
        block_spec("single_block", config, bucket, target),
        *(tile_spec(config, tile, target) for tile in tiles),
    )


def block_spec(component: Component, config: ModelConfig, bucket: Bucket, target: Target) -> EngineSpec:
    return EngineSpec(
        component=component,
        model=digest(asdict(config.dit)),
        shape=(bucket.num_tokens, MAX_TEXT),
        precision=target.dit,
        backend=target.backend,
        target=target.device,
        wide=target.wide,
        attention=target.attention,
    )


def tile_spec(config: ModelConfig, tile: tuple[int, int, int], target: Target) -> EngineSpec:
    return EngineSpec(
        component="vae_decoder_tile",
        model=digest(asdict(config.vae)),
        shape=tile,
        precision=target.vae,
        backend=target.backend,
        target=target.device,
    )


class EngineSet:
    """Loads an engine when it is first needed and keeps it. `load` raises what the store raises.

    covers says at which sizes these engines are to be used; without it, at all. Backends that compile ONNX
    read linear weights [in, out]: the networks' own are laid out so, once.
    """

    def __init__(
        self,
        config: ModelConfig,
        target: Target,
        dit: HunyuanVideoDiT,
        vae: CausalVAE,
        load: LoadEngine,
        covers: Callable[[Bucket], bool] = lambda bucket: True,
    ) -> None:
        self.config, self.target, self._load, self.covers = config, target, load, covers
        self._onnx = target.backend != "inductor"
        self._dit, self._vae = dit, VAEDecoding(vae)
        for module in (dit.double_blocks, dit.single_blocks, self._vae) if self._onnx else ():
            lay_transposed(module)
        self._engines: dict[EngineSpec, Run] = {}

    @property
    def text_tokens(self) -> int | None:
        """To what length the text has to be padded; None if these engines take it as it is."""
        return MAX_TEXT if self.target.backend in ("tensorrt", "tensorrt_rtx") else None

    def warm(self, buckets: Iterable[Bucket]) -> None:
        """Load everything that videos of these sizes need."""
        for bucket in buckets:
            for spec in specs_of(self.config, bucket, self.target):
                self._engine(spec)

    def blocks(self, bucket: Bucket) -> Blocks:
        """All blocks for a size, as the DiT's driver calls them, with the weights where they lie now."""
        double = self._engine(block_spec("double_block", self.config, bucket, self.target))
        single = self._engine(block_spec("single_block", self.config, bucket, self.target))
        return Blocks(
            double=[
                self._run_double(double, weights) for weights in map(self._weights, self._dit.double_blocks)
            ],
            single=[
                self._run_single(single, weights) for weights in map(self._weights, self._dit.single_blocks)
            ],
        )

    def decode(self, z: Tensor) -> Tensor:
        """One tile, as `CausalVAE.decode`."""
        frames, height, width = z.shape[2:]
        engine = self._engine(tile_spec(self.config, (frames, height, width), self.target))
        return engine(z, *self._weights(self._vae))[0]  # read anew: an offloaded VAE has moved

    def _engine(self, spec: EngineSpec) -> Run:
        if spec not in self._engines:
            self._engines[spec] = self._load(spec)
        return self._engines[spec]

    def _weights(self, module: nn.Module) -> list[Tensor]:
        """In the order and the layout of the engines; no copies."""
        linears = {f"{name}.weight" for name in linear_names(module)} if self._onnx else set()
        return [tensor.t() if name in linears else tensor for name, tensor in block_weights(module).items()]

    def _run_double(self, engine: Run, weights: list[Tensor]) -> Callable[..., tuple[Tensor, Tensor]]:
        def run(
            img: Tensor, txt: Tensor, img_mod: Tensor, txt_mod: Tensor, rope: Rope, valid: Tensor | None
        ) -> tuple[Tensor, Tensor]:
            count = self._count(valid, img.shape[1] + txt.shape[1], img.device)
            img, txt = engine(img, txt, img_mod, txt_mod, *rope, *count, *weights)
            return img, txt

        return run

    def _run_single(self, engine: Run, weights: list[Tensor]) -> Callable[..., Tensor]:
        def run(x: Tensor, mod: Tensor, rope: Rope, valid: Tensor | None) -> Tensor:
            return engine(x, mod, *rope, *self._count(valid, x.shape[1], x.device), *weights)[0]

        return run

    def _count(self, valid: Tensor | None, tokens: int, device: torch.device) -> list[Tensor]:
        """The input that says how many tokens are not padding, where engines have one."""
        if not self._onnx:
            assert valid is None, "these engines see no padding"
            return []
        return [torch.tensor([tokens], device=device) if valid is None else valid]
