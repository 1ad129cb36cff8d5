from pathlib import Path

import torch

from hyvideo_rt.pipeline import Pipeline
from hyvideo_rt.weights.checkpoint import Checkpoint
from tiny.card import model_card
from tiny.evaluate import evaluate, prompts
from tiny.networks import new_denoiser, new_vae
from tiny.publish import publish
from tiny.world import split


def test_prompts_are_held_out_and_half_of_them_plain() -> None:
    found = prompts(40, seed=0)
    assert found == prompts(40, seed=0)
    assert all(split(scene) == "heldout" for _, scene, _ in found)
    assert sum(plain for _, _, plain in found) == 20
    assert all(text.endswith(f"on a {scene.background} background") for text, scene, plain in found if plain)


def test_random_weights_make_nothing_that_was_asked_for(tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    publish(new_vae(), new_denoiser(), folder, model_card(scores=None, trained_on=None))
    pipeline = Pipeline.load(Checkpoint.open(folder), torch.device("cpu"))
    result = evaluate(pipeline, num_prompts=4, num_clips=1)
    assert result["all prompts"]["videos"] == 4
    assert result["all prompts"]["all"] < 0.5
    assert len(result["wrong"]) >= 3
    assert result["plain prompts"]["videos"] == 2
    assert 0 < result["psnr_db"]["64x64x17"] < 20
    card = model_card(scores=result, trained_on="one CPU core")
    assert "Trained on one CPU core." in card
    assert f"| all prompts | 4 | {100 * result['all prompts']['colour']:.1f} % |" in card
    assert f"{result['psnr_db']['64x64x33']:.1f} dB (64x64x33)" in card
