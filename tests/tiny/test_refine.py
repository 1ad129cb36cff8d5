from pathlib import Path
from random import Random

import torch

from tiny.networks import load, new_denoiser, new_vae, save
from tiny.refine import SIZES, encode, redone, refine
from tiny.texts import Tokenizers

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
