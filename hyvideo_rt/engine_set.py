"""The engines of a model, bound to the one copy of its weights, preset by preset.

An engine is chosen by what it computes on: blocks by the number of image tokens, the VAE's decoder by the
shape of a tile. Presets that agree in these share their engines.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass

from torch import Tensor

from hyvideo_rt.buckets import Bucket
from hyvideo_rt.config import ModelConfig
from hyvideo_rt.engines.spec import Backend, Component, EngineSpec, Precision, digest
from hyvideo_rt.models.dit import Blocks, HunyuanVideoDiT, Rope, block_weights
from hyvideo_rt.models.tiling import Tiling
from hyvideo_rt.models.vae import CausalVAE, VAEDecoding

MAX_TEXT = 256  # tokens of the prompt
Engine = Callable[..., Sequence[Tensor]]  # called with all inputs, then all weights
LoadEngine = Callable[[EngineSpec], Engine]


@dataclass(frozen=True)
class Target:
    """Of what kind engines are: how they compute, who compiled them, and for which device."""

    backend: Backend
    device: str
    dit: Precision
    vae: Precision


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
        targets=(target.device,),
    )


def tile_spec(config: ModelConfig, tile: tuple[int, int, int], target: Target) -> EngineSpec:
    return EngineSpec(
        component="vae_decoder_tile",
        model=digest(asdict(config.vae)),
        shape=tile,
        precision=target.vae,
        backend=target.backend,
        targets=(target.device,),
    )


class EngineSet:
    """Loads an engine when it is first needed and keeps it. `load` raises what the store raises."""

    def __init__(
        self, config: ModelConfig, target: Target, dit: HunyuanVideoDiT, vae: CausalVAE, load: LoadEngine
    ) -> None:
        self.config, self.target, self._load = config, target, load
        self._double = [[*block_weights(block).values()] for block in dit.double_blocks]
        self._single = [[*block_weights(block).values()] for block in dit.single_blocks]
        self._vae = VAEDecoding(vae)
        self._engines: dict[EngineSpec, Engine] = {}

    def warm(self, buckets: Iterable[Bucket]) -> None:
        """Load everything that videos of these sizes need."""
        for bucket in buckets:
            for spec in specs_of(self.config, bucket, self.target):
                self._engine(spec)

    def blocks(self, bucket: Bucket) -> Blocks:
        """All blocks for a size, as the DiT's driver calls them."""
        double = self._engine(block_spec("double_block", self.config, bucket, self.target))
        single = self._engine(block_spec("single_block", self.config, bucket, self.target))
        return Blocks(
            double=[_double(double, weights) for weights in self._double],
            single=[_single(single, weights) for weights in self._single],
        )

    def decode(self, z: Tensor) -> Tensor:
        """One tile, as `CausalVAE.decode`."""
        frames, height, width = z.shape[2:]
        engine = self._engine(tile_spec(self.config, (frames, height, width), self.target))
        return engine(z, *self._vae.state_dict().values())[0]  # read anew: an offloaded VAE has moved

    def _engine(self, spec: EngineSpec) -> Engine:
        if spec not in self._engines:
            self._engines[spec] = self._load(spec)
        return self._engines[spec]


def _double(engine: Engine, weights: list[Tensor]) -> Callable[..., tuple[Tensor, Tensor]]:
    def run(
        img: Tensor, txt: Tensor, img_mod: Tensor, txt_mod: Tensor, rope: Rope, valid: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        assert valid is None, "engines see no padding"
        img, txt = engine(img, txt, img_mod, txt_mod, *rope, *weights)
        return img, txt

    return run


def _single(engine: Engine, weights: list[Tensor]) -> Callable[..., Tensor]:
    def run(x: Tensor, mod: Tensor, rope: Rope, valid: Tensor | None) -> Tensor:
        assert valid is None, "engines see no padding"
        return engine(x, mod, *rope, *weights)[0]

    return run
