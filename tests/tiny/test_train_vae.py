from pathlib import Path
from random import Random

import pytest
import torch

from hyvideo_rt.models.vae import CausalVAE
from tiny.networks import load, new_vae
from tiny.render import render_batch
from tiny.train_vae import (
    MAIN,
    TWO_THINGS,
    clips,
    cut_outs,
    draw_scene,
    folded,
    has_bright,
    local_variance,
    psnr,
    relative_loss,
    start_quiet,
    train_vae,
    vae_loss,
    visibility,
)
from tiny.world import Scene, Thing, has_star, sample_scene

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


def test_variance_is_that_of_the_pixels_around() -> None:
    video = torch.zeros(1, 3, 2, 40, 40)
    video[..., 20:] = 0.8
    found = local_variance(video)
    assert found.shape == (1, 1, 2, 40, 40)
    assert found[..., [0, 10, 29, 39]].abs().max() < 1e-6  # 8 pixels and more from the edge
    assert found[..., 20].flatten() == pytest.approx(0.16 * (1 - (1 / 17) ** 2), abs=1e-5)  # 9 of 17 bright


def test_what_is_small_pale_or_bright_is_drawn_more_often() -> None:
    white_on_pink, black_on_pink = (
        Scene("pink", (Thing("star", colour, "small", "still"),)) for colour in ("white", "black")
    )
    assert visibility(white_on_pink) == pytest.approx(93.14 / 8 * 1.749**0.5, abs=0.01)
    both = Scene("pink", black_on_pink.things + white_on_pink.things)
    assert visibility(both) == visibility(white_on_pink) < visibility(black_on_pink)

    white_on_black, red_on_black, yellow_on_grey = (
        Scene(behind, (Thing("star", colour, "small", "still"),))
        for colour, behind in (("white", "black"), ("red", "black"), ("yellow", "grey"))
    )
    assert all(map(has_bright, (white_on_pink, both, white_on_black, red_on_black)))
    assert not any(map(has_bright, (black_on_pink, yellow_on_grey)))

    drawn, usual = Random(1), Random(1)
    often = [draw_scene(drawn, "train") for _ in range(1000)]
    plain = [sample_scene(usual, "train", TWO_THINGS) for _ in range(1000)]
    limit = sorted(map(visibility, plain))[250]
    assert 0.49 < sum(visibility(each) < limit for each in often) / 1000 < 0.60
    assert 0.53 < sum(map(has_bright, often)) / 1000 < 0.63
    assert 0.20 < sum(map(has_bright, plain)) / 1000 < 0.31
    assert 0.60 < sum(map(has_star, often)) / 1000 < 0.75
    assert 0.30 < sum(map(has_star, plain)) / 1000 < 0.42


def test_a_shape_that_is_missed_costs_about_the_same_at_any_contrast() -> None:
    """Squared errors of pixels differ by a factor of ten."""
    clips = {
        shape: [
            render_batch([Scene(background, (Thing(shape, "white", "large", "still"),))], *MAIN)
            for background in ("pink", "black")
        ]
        for shape in ("star", "circle")
    }
    pairs = list(zip(clips["circle"], clips["star"], strict=True))
    squared = [float((circle - star).square().mean()) for circle, star in pairs]
    relative = [float(relative_loss(circle, star)) for circle, star in pairs]
    assert squared[1] > 8 * squared[0]
    assert relative[1] < 2.5 * relative[0]
    assert float(relative_loss(clips["star"][0], clips["star"][0])) == 0


def test_a_few_steps_lower_the_loss() -> None:
    vae = new_vae()
    start_quiet(vae)
    torch.manual_seed(0)
    rng = Random(1)
    video = render_batch([sample_scene(rng, "train", TWO_THINGS) for _ in range(2)], *SIZE, CPU)
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
    seams = sum(_has_seam(piece) for piece in pieces)
    assert 2 <= seams <= 10, "a quarter of them is put together of two"


def _has_seam(piece: torch.Tensor) -> bool:
    """A line across the whole piece, between two backgrounds, in every frame."""
    return any(
        bool((piece.diff(dim=axis).abs().amax(dim=0) > 0.02).all(dim=0).all(dim=3 - axis).any())
        for axis in (2, 3)
    )


def test_training_goes_on_where_it_ended(tmp_path: Path) -> None:
    for seed in (0, 1):
        train_vae(tmp_path, CPU, minutes=0.02, batch=1, learning_rate=0.0, cut_out_share=1.0, seed=seed)
    trained = new_vae()
    load(tmp_path, "vae", trained)
    video = clips(Random(0), "train", 2, SIZE, CPU)
    first, other = new_vae(0), new_vae(1)
    assert psnr(trained, video) == pytest.approx(psnr(first, video), abs=0.1)
    assert psnr(trained, video) != pytest.approx(psnr(other, video), abs=0.1)
