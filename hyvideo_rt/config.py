"""The sizes of the four networks, frozen, and the named models. Nothing here touches torch."""

from dataclasses import dataclass, replace

from hyvideo_rt.buckets import OFFICIAL_PRESETS, TINY_PRESETS, Bucket


@dataclass(frozen=True)
class DiTConfig:
    """The denoising transformer. Defaults are the published HYVideo-T/2-cfgdistill."""

    hidden_size: int = 3072
    num_heads: int = 24
    num_double_blocks: int = 20
    num_single_blocks: int = 40
    num_refiner_blocks: int = 2
    mlp_ratio: float = 4.0
    in_channels: int = 16
    out_channels: int = 16
    patch_size: tuple[int, int, int] = (1, 2, 2)  # (T, H, W)
    rope_dims: tuple[int, int, int] = (16, 56, 56)  # (T, H, W), together one head
    rope_theta: float = 256.0
    text_dim: int = 4096
    pooled_dim: int = 768
    guidance_embed: bool = True

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_heads

    @property
    def mlp_size(self) -> int:
        return int(self.hidden_size * self.mlp_ratio)

    def flops_per_step(self, bucket: Bucket, text_tokens: int = 256) -> int:
        """Multiply-adds counted as two, of the blocks for one video; the embedders are below 1 in 10^4.

        Per token and block qkv, proj and MLP have (4 + 2 * mlp_ratio) * D^2 weights; attention over L tokens
        is two L x L x D products.
        """
        tokens = bucket.num_tokens + text_tokens
        weights = 4 * self.hidden_size**2 + 2 * self.hidden_size * self.mlp_size
        return self._num_blocks * 2 * tokens * weights + self.attention_flops_per_step(bucket, text_tokens)

    def attention_flops_per_step(self, bucket: Bucket, text_tokens: int = 256) -> int:
        """The part of `flops_per_step` that is attention's two products."""
        tokens = bucket.num_tokens + text_tokens
        return self._num_blocks * 4 * tokens**2 * self.hidden_size

    @property
    def _num_blocks(self) -> int:
        return self.num_double_blocks + self.num_single_blocks


@dataclass(frozen=True)
class VAEConfig:
    """The causal 3-D VAE `884-16c-hy`: 8x in space, 4x in time, 16 channels."""

    block_channels: tuple[int, ...] = (128, 256, 512, 512)
    layers_per_block: int = 2
    in_channels: int = 3
    out_channels: int = 3
    latent_channels: int = 16
    norm_groups: int = 32
    scaling_factor: float = 0.476986
    shift_factor: float = 0.0
    sample_size: int = 256  # pixels of a spatial tile
    sample_tsize: int = 64  # frames of a temporal tile
    tile_overlap: float = 0.25


@dataclass(frozen=True)
class LlamaConfig:
    """The language tower of LLaVA-Llama-3-8B: only hidden states are used, never its head."""

    vocab_size: int = 128320
    hidden_size: int = 4096
    intermediate_size: int = 14336
    num_layers: int = 32
    num_heads: int = 32
    num_kv_heads: int = 8
    rope_theta: float = 500000.0
    norm_eps: float = 1e-5

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_heads


@dataclass(frozen=True)
class ClipConfig:
    """The text tower of CLIP-L/14."""

    vocab_size: int = 49408
    hidden_size: int = 768
    intermediate_size: int = 3072
    num_layers: int = 12
    num_heads: int = 12
    max_positions: int = 77
    norm_eps: float = 1e-5
    bos_token_id: int = 49406
    eos_token_id: int = 49407


@dataclass(frozen=True)
class ModelConfig:
    """Everything that makes a video: one text-to-video model."""

    dit: DiTConfig = DiTConfig()
    vae: VAEConfig = VAEConfig()
    llm: LlamaConfig = LlamaConfig()
    clip: ClipConfig = ClipConfig()


_DISTILLED = ModelConfig()
MODELS = {
    "HYVideo-T/2-cfgdistill": _DISTILLED,
    "HYVideo-T/2": replace(_DISTILLED, dit=replace(_DISTILLED.dit, guidance_embed=False)),
    "tiny": ModelConfig(
        dit=DiTConfig(
            hidden_size=192,
            num_heads=3,
            num_double_blocks=2,
            num_single_blocks=3,
            num_refiner_blocks=1,
            rope_dims=(16, 24, 24),
            text_dim=64,
            pooled_dim=64,
        ),
        vae=VAEConfig(block_channels=(16, 32, 48, 48), layers_per_block=1, norm_groups=8),
        llm=LlamaConfig(
            vocab_size=1024,
            hidden_size=64,
            intermediate_size=160,
            num_layers=4,
            num_heads=4,
            num_kv_heads=2,
        ),
        clip=ClipConfig(
            vocab_size=1024,
            hidden_size=64,
            intermediate_size=128,
            num_layers=2,
            num_heads=4,
            bos_token_id=1022,
            eos_token_id=1023,
        ),
    ),
}


def sampling_defaults(config: ModelConfig) -> tuple[Bucket, int]:
    """The size and the number of steps of a request that names none."""
    if config == MODELS["tiny"]:
        return Bucket(64, 64, 17), 20
    return Bucket(720, 1280, 129), 50


def presets_of(config: ModelConfig) -> dict[str, Bucket]:
    """The named sizes that a model was trained for."""
    return TINY_PRESETS if config == MODELS["tiny"] else OFFICIAL_PRESETS
