"""The networks as a model folder: diffusers layout, fp16.

`python -m tiny.publish CHECKPOINTS TARGET` takes the trained ones, `python -m tiny.publish --untrained
TARGET` random ones that are the same each time. The last layers of the LLM, which nothing runs, are always
random.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from hyvideo_rt.models.llama import LlamaEncoder
from hyvideo_rt.models.vae import CausalVAE
from hyvideo_rt.weights.checkpoint import Checkpoint
from hyvideo_rt.weights.checkpoint_files import ORIGINAL_DIT, ORIGINAL_VAE
from hyvideo_rt.weights.convert import convert
from hyvideo_rt.weights.model_configs import dit_json, vae_json
from hyvideo_rt.weights.text_configs import clip_json, llm_json
from tiny import tokenizers
from tiny.card import model_card
from tiny.networks import TINY, Denoiser, load, new_denoiser, new_vae

TOKENIZER_IDS = {"bos_token_id": 0, "eos_token_id": 3, "pad_token_id": 4}
DTYPE = torch.float16


def publish(vae: CausalVAE, denoiser: Denoiser, target: Path, card: str) -> None:
    """Write the folder `target`, which must not exist or be empty."""
    with tempfile.TemporaryDirectory() as folder:
        _write_original(Path(folder), vae, denoiser)
        convert(Checkpoint.open(folder), target, "diffusers")
    tokenizers.write(target)
    _write_json(target / "text_encoder" / "config.json", llm_json(TINY.llm) | TOKENIZER_IDS)
    (target / "README.md").write_text(card)


def _write_original(folder: Path, vae: CausalVAE, denoiser: Denoiser) -> None:
    """The original layout, whose names our networks have; `convert` makes diffusers' of them."""
    _write_component(folder / ORIGINAL_DIT, dit_json(TINY.dit, "original"), denoiser.dit.state_dict())
    _write_component(folder / ORIGINAL_VAE, vae_json(TINY.vae, "original"), vae.state_dict())
    llm, clip = (folder / name / "model.safetensors" for name in ("text_encoder", "text_encoder_2"))
    _write_component(llm, llm_json(TINY.llm), _whole_llm(denoiser.llm))
    _write_component(clip, clip_json(TINY.clip), denoiser.clip.state_dict())


def _write_component(weights: Path, config: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    weights.parent.mkdir(parents=True, exist_ok=True)
    _write_json(weights.with_name("config.json"), config)
    save_file({name: tensor.to(DTYPE).contiguous() for name, tensor in tensors.items()}, weights)


def _whole_llm(encoder: LlamaEncoder) -> dict[str, Tensor]:
    """The layers that were trained, and those behind them."""
    torch.manual_seed(0)
    return LlamaEncoder(TINY.llm, skip_layers=0).state_dict() | encoder.state_dict()


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("checkpoints", type=Path, nargs="?", help="the folder of the training runs")
    source.add_argument("--untrained", action="store_true")
    parser.add_argument("target", type=Path, help="the model's folder, new or empty")
    parser.add_argument("--scores", type=Path, help="JSON of tiny.evaluate, for the model card")
    parser.add_argument("--trained-on", help="hardware and time, for the model card")
    args = parser.parse_args()
    if not args.untrained and not args.trained_on:
        parser.error(
            'trained weights need --trained-on, such as "one H100 in 16 minutes", for the model card'
        )
    vae, denoiser = new_vae(), new_denoiser()
    if not args.untrained:
        load(args.checkpoints, "vae", vae)
        load(args.checkpoints, "student", denoiser)
    scores = json.loads(args.scores.read_text()) if args.scores else None
    publish(vae, denoiser, args.target, model_card(scores=scores, trained_on=args.trained_on))


if __name__ == "__main__":
    main()
