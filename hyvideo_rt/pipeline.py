"""One prompt to one video: encode, denoise, decode. All that makes a video calls `Pipeline.generate`."""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hyvideo_rt import __version__
from hyvideo_rt.allocator import keep_freed_memory
from hyvideo_rt.buckets import Bucket
from hyvideo_rt.engine_set import EngineSet
from hyvideo_rt.errors import InvalidRequest
from hyvideo_rt.kernels.attention_backends import BACKENDS
from hyvideo_rt.kernels.ops import REFERENCE, Ops
from hyvideo_rt.kernels.rope import rope_table
from hyvideo_rt.models.dit import Conditioning, HunyuanVideoDiT
from hyvideo_rt.models.tiling import Tiling, stream_tiled
from hyvideo_rt.models.tokenizers import ClipTokenizer, LlmTokenizer
from hyvideo_rt.models.vae import CausalVAE
from hyvideo_rt.sampling import TIMESTEPS, Predict, SamplingParams, denoise, initial_noise, make_sigmas
from hyvideo_rt.text import TextEncoder, TextStates
from hyvideo_rt.video import Video, check_not_flat, to_uint8
from hyvideo_rt.weights.checkpoint import Checkpoint

# Called as (stage, done, total) with stage encode, denoise or decode: once with done = 0 when the stage
# starts, then after the text, every step or every tile. Whatever it raises, `errors.Cancelled` for one, ends
# the request there.
Progress = Callable[[str, int, int], None]

FPS = 24
CACHED_PROMPTS = 16
DEFAULT_NEGATIVE_PROMPT = (
    "Aerial view, aerial view, overexposed, low quality, deformation, a poor composition, bad hands, "
    "bad teeth, bad eyes, bad limbs, distortion"
)


@dataclass(frozen=True)
class Precision:
    """What each component computes in. `fp8` keeps the DiT's block weights in 8 bits, but for `wide` layers.

    Engines of fp8 compute in 8 bits as well; without them, weights are widened at each use, but with
    `fp8_products` the blocks' linear layers multiply in 8 bits (on a GPU of 8.9 or newer, dit in bf16).
    """

    dit: torch.dtype
    vae: torch.dtype
    llm: torch.dtype
    clip: torch.dtype
    fp8: bool = False
    wide: tuple[str, ...] = ()  # names of linear layers in the blocks, and "attention"
    fp8_products: bool = False

    @classmethod
    def default(cls, device: torch.device) -> "Precision":
        """The original's on a GPU; fp32 on a CPU."""
        if device.type == "cpu":
            return cls(torch.float32, torch.float32, torch.float32, torch.float32)
        return cls(torch.bfloat16, torch.float16, torch.float16, torch.float16)

    def __str__(self) -> str:
        dtypes = {k: v for k, v in asdict(self).items() if isinstance(v, torch.dtype)}
        words = [f"{k} {str(v).removeprefix('torch.')}" for k, v in dtypes.items()]
        narrow = "fp8 weights and products" if self.fp8_products else "fp8 weights"
        return ", ".join([*words, narrow] if self.fp8 else words)


def default_ops(device: torch.device) -> Ops:
    """The reference on a CPU; on a GPU our Triton kernels, with the attention that torch chooses."""
    if device.type == "cpu":
        return REFERENCE
    from hyvideo_rt.kernels.triton_ops import triton_ops  # a CPU has no use for Triton, and need not have it

    return triton_ops("sdpa", BACKENDS["sdpa"].load())


class Pipeline:
    """The four networks of one model on one device, ready to generate.

    With `offload` all of them rest on the host and visit the device for their stage: what a video needs there
    is the largest of them and its activations, for two seconds of copying or so.
    """

    def __init__(
        self,
        dit: HunyuanVideoDiT,
        vae: CausalVAE,
        text_encoder: TextEncoder,
        *,
        device: torch.device,
        offload: bool = False,
        engines: EngineSet | None = None,
        identity: dict[str, str] | None = None,
    ) -> None:
        self.dit, self.vae, self.text_encoder = dit, vae, text_encoder
        self.engines = engines
        self.device, self.offload = device, offload
        self.identity = identity or {}
        self._texts: dict[tuple[str, bool], TextStates] = {}

    @classmethod
    def load(
        cls,
        checkpoint: Checkpoint,
        device: torch.device,
        precision: Precision | None = None,
        *,
        offload: bool = False,
        engines: Callable[[HunyuanVideoDiT, CausalVAE], EngineSet] | None = None,
        ops: Ops | None = None,
        text_len: int = 256,
        skip_layers: int = 2,
        apply_final_norm: bool = False,
    ) -> "Pipeline":
        """Each component straight to where it rests; skip_layers, apply_final_norm choose the LLM's state.

        engines makes what runs the DiT's blocks and the VAE's decoder, of these two; without it they do it
        themselves, by the operators `ops`: by default `default_ops`. On a CPU the process keeps what it frees
        from now on (`allocator.keep_freed_memory`).
        """
        if not 0 <= skip_layers < checkpoint.config.llm.num_layers:
            raise InvalidRequest(
                f"got {skip_layers} skipped layers of the LLM, which has {checkpoint.config.llm.num_layers}\n"
                f"  the published weights were trained with 2"
            )
        checkpoint.check(skip_layers)
        if device.type == "cpu":
            keep_freed_memory()
        precision = precision or Precision.default(device)
        rest = torch.device("cpu") if offload else device
        llm_tokenizer = LlmTokenizer(checkpoint.llm_tokenizer)  # before gigabytes are read for nothing
        clip_tokenizer = ClipTokenizer(checkpoint.clip_tokenizer)
        text_encoder = TextEncoder(
            checkpoint.load_llm(rest, precision.llm, skip_layers),
            llm_tokenizer,
            checkpoint.load_clip(rest, precision.clip),
            clip_tokenizer,
            text_len=text_len,
            apply_final_norm=apply_final_norm,
        )
        ops = ops or default_ops(device)
        dit = checkpoint.load_dit(
            rest,
            precision.dit,
            fp8=precision.fp8,
            wide=precision.wide,
            ops=ops,
            fp8_products=precision.fp8_products,
        )
        vae_ops = REFERENCE if engines else ops  # engines read weights as torch lays them out
        vae = checkpoint.load_vae(rest, precision.vae, vae_ops)
        compiled = engines(dit, vae) if engines else None
        return cls(
            dit,
            vae,
            text_encoder,
            device=device,
            offload=offload,
            engines=compiled,
            identity={
                "model": checkpoint.name,
                "fingerprint": checkpoint.fingerprint,
                "precision": str(precision),
                "backend": compiled.target.backend if compiled else "eager",
                "kernels": ops.name,
                "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
                "version": f"hyvideo-rt {__version__}",
            },
        )

    @torch.inference_mode()
    def generate(self, prompt: str, params: SamplingParams, progress: Progress | None = None) -> Video:
        """One prompt to one video, on the calling thread's CUDA stream.

        Raises NumericalError instead of returning NaN or a flat picture, and whatever `progress` raises.
        """
        clock = _StageClock(self.device, progress)
        sigmas = make_sigmas(params)
        with clock.stage("encode", 1):
            text, negative = self.encode(prompt, params)
            clock.report(1, 1)
        with clock.stage("denoise", params.num_inference_steps), self.visiting(self.dit):
            predict = self.predictor(text, negative, params, sigmas)
            noise = initial_noise(params.bucket, params.seed, self.dit.config.in_channels)
            latents = denoise(predict, noise.to(self.device), sigmas, clock.report)
        with clock.stage("decode", self.num_tiles(latents)):
            chunks = self.decode(latents, clock.report)
            frames = torch.cat([to_uint8(chunk[0]).cpu() for chunk in chunks]).numpy()
        check_not_flat(frames)
        return Video(frames, FPS, self._metadata(prompt, text, params), clock.seconds)

    def encode(self, prompt: str, params: SamplingParams) -> tuple[TextStates, TextStates | None]:
        """The prompt and, under real CFG, the negative prompt; the last few prompts are remembered."""
        image = params.bucket.num_frames == 1
        prompts = [prompt]
        if params.uses_cfg:
            prompts.append(params.negative_prompt or DEFAULT_NEGATIVE_PROMPT)
        missing = [p for p in dict.fromkeys(prompts) if (p, image) not in self._texts]
        if missing:
            with self.visiting(self.text_encoder.llm, self.text_encoder.clip):
                for p in missing:
                    self._texts[p, image] = self.text_encoder.encode(p, image=image)
        texts = [self._texts[p, image] for p in prompts]
        while len(self._texts) > CACHED_PROMPTS:
            del self._texts[next(iter(self._texts))]
        return texts[0], texts[1] if params.uses_cfg else None

    def forget_prompts(self) -> None:
        self._texts.clear()

    def predictor(
        self, text: TextStates, negative: TextStates | None, params: SamplingParams, sigmas: Tensor
    ) -> Predict:
        """The velocity as a function of latents and step; what no latent changes is computed here, once."""
        rope = _to(
            rope_table(params.bucket.grid, self.dit.config.rope_dims, self.dit.config.rope_theta), self.device
        )
        engines = self.engines_for(params.bucket)
        blocks = engines.blocks(params.bucket) if engines else self.dit.blocks()
        positive = self._condition(text, params, sigmas)
        if negative is None:
            return lambda latents, i: self.dit(latents, positive.row(i), rope, blocks)
        avoided = self._condition(negative, params, sigmas)

        def guided(latents: Tensor, i: int) -> Tensor:
            avoid: Tensor = self.dit(latents, avoided.row(i), rope, blocks)
            follow: Tensor = self.dit(latents, positive.row(i), rope, blocks)
            return avoid + params.true_cfg_scale * (follow - avoid)

        return guided

    def decode(self, latents: Tensor, on_tile: Callable[[int, int], None] | None = None) -> Iterator[Tensor]:
        """Latents [1, 16, T, H, W] to pictures in 0..1, fp32: chunks [1, 3, f, 8 H, 8 W] in order of time."""
        config = self.vae.config
        z = latents / config.scaling_factor + config.shift_factor
        dtype = self.vae.post_quant_conv.weight.dtype
        engines = self.engines_for(_bucket_of(latents)) if self.engines else None
        decode_tile = engines.decode if engines else self.vae.decode
        with self.visiting(self.vae):
            for chunk in stream_tiled(decode_tile, z.to(dtype), Tiling.decode(config), on_tile):
                yield (chunk.float() / 2 + 0.5).clamp(0, 1)

    def engines_for(self, bucket: Bucket) -> EngineSet | None:
        """What runs the blocks and the decoder at this size; None if they do it themselves."""
        return self.engines if self.engines and self.engines.covers(bucket) else None

    def num_tiles(self, latents: Tensor) -> int:
        frames, height, width = latents.shape[2:]
        return len(Tiling.decode(self.vae.config).tile_shapes((frames, height, width)))

    def _condition(self, text: TextStates, params: SamplingParams, sigmas: Tensor) -> Conditioning:
        """All steps' conditioning as one batch of n rows."""
        steps = params.num_inference_steps
        guidance = None
        if self.dit.config.guidance_embed:
            # The original scales in the model's dtype: 6.0 reaches a bf16 model as 6016.
            dtype = self.dit.img_in.proj.weight.dtype
            guidance = torch.full((steps,), params.guidance_scale, dtype=dtype, device=self.device) * 1000
        states, valid = text.states.to(self.device), None
        engines = self.engines_for(params.bucket)
        if engines and engines.text_tokens:
            tokens = states.shape[1]
            states = F.pad(states, (0, 0, 0, engines.text_tokens - tokens))
            valid = torch.full((steps,), tokens, device=self.device)
        return self.dit.condition(
            (TIMESTEPS * sigmas[:-1]).to(self.device),
            states.expand(steps, -1, -1),
            text.pooled.to(self.device).expand(steps, -1),
            guidance,
            valid,
        )

    def _metadata(
        self, prompt: str, text: TextStates, params: SamplingParams
    ) -> dict[str, str | int | float]:
        metadata: dict[str, str | int | float] = {
            "prompt": prompt,
            "seed": params.seed,
            "size": str(params.bucket),
            "num_inference_steps": params.num_inference_steps,
            "guidance_scale": params.guidance_scale,
            "flow_shift": params.flow_shift,
        }
        if params.uses_cfg:
            metadata["true_cfg_scale"] = params.true_cfg_scale
            metadata["negative_prompt"] = params.negative_prompt or DEFAULT_NEGATIVE_PROMPT
        if text.truncated:
            metadata["dropped_tokens"] = text.num_llm_tokens - text.states.shape[1]
        eager = {"backend": "eager"} if self.engines_for(params.bucket) is None else {}
        return metadata | self.identity | eager

    @contextlib.contextmanager
    def visiting(self, *modules: nn.Module) -> Iterator[None]:
        """Inside, these networks are on the device. Nothing is copied back: weights do not change."""
        if not self.offload:
            yield
            return
        tensors = [t for module in modules for t in (*module.parameters(), *module.buffers())]
        hosts = [t.data for t in tensors]
        try:
            for tensor, host in zip(tensors, hosts, strict=True):
                tensor.data = host.to(self.device)
            yield
        finally:
            for tensor, host in zip(tensors, hosts, strict=True):
                tensor.data = host

    @contextlib.contextmanager
    def offloading(self) -> Iterator[None]:
        """Inside, the networks rest on the host, as with `offload`; then they come back, if there is room."""
        if self.offload:
            yield
            return
        networks = (self.dit, self.vae, self.text_encoder.llm, self.text_encoder.clip)
        tensors = [t for network in networks for t in (*network.parameters(), *network.buffers())]
        self.offload = True
        for tensor in tensors:
            tensor.data = tensor.data.cpu()
        try:
            yield
        finally:
            with contextlib.suppress(torch.OutOfMemoryError):  # those that do not fit go on visiting
                for tensor in tensors:
                    tensor.data = tensor.data.to(self.device)
                self.offload = False


class _StageClock:
    """Seconds per stage, the device's queue included, and the way to the caller's progress."""

    def __init__(self, device: torch.device, progress: Progress | None) -> None:
        self.device, self.progress = device, progress
        self.seconds: dict[str, float] = {}
        self._stage = ""

    @contextlib.contextmanager
    def stage(self, name: str, total: int) -> Iterator[None]:
        self._stage = name
        self.report(0, total)
        start = time.perf_counter()
        yield
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.seconds[name] = time.perf_counter() - start

    def report(self, done: int, total: int) -> None:
        if self.progress:
            self.progress(self._stage, done, total)


def pick_device(name: str) -> torch.device:
    """`auto`, `cpu`, `cuda` or `cuda:1`; auto is the GPU if there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InvalidRequest(f"got device {name!r}; expected auto, cpu, cuda or cuda:N") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InvalidRequest(
            f"got device {name!r}, but this torch sees no CUDA GPU; expected auto or cpu\n"
            f"  `hyvideo-rt doctor` shows what is missing"
        )
    return device


def _bucket_of(latents: Tensor) -> Bucket:
    frames, height, width = latents.shape[2:]
    return Bucket(height * 8, width * 8, (frames - 1) * 4 + 1)


def _to(tables: tuple[Tensor, Tensor], device: torch.device) -> tuple[Tensor, Tensor]:
    cos, sin = tables
    return cos.to(device), sin.to(device)
