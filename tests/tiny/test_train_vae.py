from pathlib import Path
from random import Random

import pytest
import torch

from hyvideo_rt.models.vae import CausalVAE
from tiny.networks import load, new_vae
from tiny.train_vae import clips, cut_outs, folded, psnr, start_quiet, train_vae, vae_loss

SIZE = (32, 32, 5)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def vae() -> CausalVAE:
    return new_vae().requires_grad_(False)


def test_folding_changes_the_latents_scale_and_nothing_else(vae: CausalVAE) -> None:
    video = clips(Random(0), "train", 8, SIZE, CPU)
    after = folded(vae, iter([video]))
    means, log_variances = after.encode(video).chunk(2, dim=1)
    scaled = means * vae.config.scaling_factor
    assert scaled.mean(dim=(0, 2, 3, 4)).abs().max() < 1e-4
    assert (scaled.std(dim=(0, 2, 3, 4)) - 1).abs().max() < 1e-4
    before_means, before_log_variances = vae.encode(video).chunk(2, dim=1)
    torch.testing.assert_close(after.decode(means), vae.decode(before_means), atol=1e-4, rtol=0)
    noise_in_means = before_log_variances - 2 * before_means.std(dim=(0, 2, 3, 4)).log().view(1, -1, 1, 1, 1)
    torch.testing.assert_close(log_variances + 2 * torch.tensor(0.476986).log(), noise_in_means)


def test_psnr_is_that_of_pixels() -> None:
    class OffBy(CausalVAE):
        """Reconstructs everything 0.1 too bright, where pixels run from -1 to 1."""

        def encode(self, video: torch.Tensor) -> torch.Tensor:
            return torch.cat((video, video), dim=1)

        def decode(self, z: torch.Tensor) -> torch.Tensor:
            return z + 0.1

    video = torch.zeros(2, 3, 1, 8, 8)
    error = OffBy(new_vae().config)
    assert psnr(error, video).tolist() == pytest.approx([26.0206] * 2, abs=1e-3)  # 20 log10(2 / 0.1)


def test_a_few_steps_lower_the_loss() -> None:
    vae = new_vae()
    start_quiet(vae)
    torch.manual_seed(0)
    video = clips(Random(1), "train", 2, SIZE, CPU)
    optimizer = torch.optim.AdamW(vae.parameters(), 3e-3)
    losses = []
    for _ in range(8):
        loss = vae_loss(vae, video)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]


def test_each_cut_out_shows_part_of_a_thing() -> None:
    pieces = cut_outs(Random(0), "train", 24, CPU)
    assert pieces.shape == (24, 3, 9, 32, 32)
    assert all(piece.std(dim=(1, 2, 3)).max() > 0.05 for piece in pieces)


def test_training_goes_on_and_the_decoder_alone_leaves_the_latents(tmp_path: Path) -> None:
    runs = []
    for decoder_only in (False, True):
        train_vae(
            tmp_path,
            CPU,
            minutes=0.02,
            batch=1,
            learning_rate=1e-2,
            cut_out_share=1.0,
            decoder_only=decoder_only,
        )
        runs.append(new_vae())
        load(tmp_path, "vae", runs[-1])
    before, after = (run.state_dict() for run in runs)
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"decoder", "post_quant_conv"}
