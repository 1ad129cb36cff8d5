from pathlib import Path
from random import Random

import pytest
import torch

from tiny.latents import Size
from tiny.networks import load, new_denoiser, new_vae, save
from tiny.refine import SIZES, encode, piece_of, redone, refine
from tiny.render import render_batch
from tiny.texts import Tokenizers
from tiny.world import Scene, sample_scene

CPU = torch.device("cpu")


def test_redone_latents_are_the_same_but_for_what_the_student_gets_wrong() -> None:
    """A student that knows the clip gives it back; another one does not."""
    torch.manual_seed(0)
    latents = torch.randn(2, 16, 2, 4, 6)
    texts = Tokenizers().encode(["a red circle moves right", "a blue star moves up"])

    class Knows(torch.nn.Module):
        def forward(self, x: torch.Tensor, sigma: torch.Tensor, *_: object) -> torch.Tensor:
            return (x - latents) / sigma.view(-1, 1, 1, 1, 1)

    back = redone(Knows(), latents, texts, 4)  # type: ignore[arg-type]
    torch.testing.assert_close(back, latents, atol=1e-4, rtol=0)
    assert (redone(new_denoiser(), latents, texts, 4) - latents).abs().mean() > 0.1


def test_clips_of_every_size_are_encoded_even_if_time_is_out() -> None:
    pools = encode(new_vae(), Random(0), 100, 1, minutes=0.0)
    assert {pool.size for pool in pools} == set(SIZES)
    for pool in pools:
        assert len(pool.scenes) == len(pool.latents) == 1
        height, width, frames = pool.size
        assert pool.latents.shape[1:] == (16, (frames - 1) // 4 + 1, height // 8, width // 8)


@pytest.mark.parametrize("size", SIZES)
def test_a_piece_is_the_same_place_of_latents_and_pixels_and_holds_one_of_the_things(size: Size) -> None:
    rng = Random(0)
    height, width, _ = size
    for _ in range(50):
        scene = sample_scene(rng, "train", two_things=0.5)
        background = Scene(scene.background, ())
        clip = (render_batch([scene], *size) - render_batch([background], *size))[0, :, :5]
        places = torch.arange(height * width // 64).view(1, 1, height // 8, width // 8).expand(16, 2, -1, -1)
        latents, pixels = piece_of(rng, scene, size, places, clip)
        assert latents.shape == (16, 2, 5, 5)
        top, left = divmod(int(latents[0, 0, 0, 0]), width // 8)
        assert torch.equal(pixels, clip[:, :, 8 * top : 8 * top + 40, 8 * left : 8 * left + 40])
        whole = [_covered(scene, size, i) for i in range(len(scene.things))]
        assert any(float(pixels.abs().sum()) >= 0.9 * one for one in whole)


def _covered(scene: Scene, size: Size, thing: int) -> float:
    """What one thing of the scene adds to the first five frames."""
    alone = Scene(scene.background, scene.things[thing : thing + 1])
    background = Scene(scene.background, ())
    return float((render_batch([alone], *size) - render_batch([background], *size))[0, :, :5].abs().sum())


def test_only_the_decoder_changes(tmp_path: Path) -> None:
    save(tmp_path, "vae", new_vae())
    save(tmp_path, "student", new_denoiser())
    before, after = new_vae(), new_vae()
    load(tmp_path, "vae", before)
    refine(tmp_path, CPU, minutes=0.1, num_clips=3, batch=1, learning_rate=1e-2, seed=0)
    load(tmp_path, "vae", after)
    weights = after.state_dict()
    changed = {
        name.split(".")[0] for name, w in before.state_dict().items() if not torch.equal(w, weights[name])
    }
    assert changed == {"decoder", "post_quant_conv"}
