import numpy as np
import pytest
import torch

from hyvideo_rt.models.tokenizers import VIDEO_TEMPLATE
from tiny.latents import CAPTIONS, MAIN, Pool, build_pools, describe
from tiny.networks import new_vae
from tiny.texts import PAD_ID, Tokenizers
from tiny.train_dit import draw
from tiny.training import autocast
from tiny.world import has_star, split

CLIPS = 2


@pytest.fixture(scope="module")
def pool() -> Pool:
    vae = new_vae().requires_grad_(False)
    return build_pools(vae, CLIPS, torch.device("cpu"), seed=0, minutes=1, workers=1)[0]


def test_scenes_are_of_the_training_split_and_repeat_with_their_seed() -> None:
    scenes, (llm, valid, clip) = describe(("0 0", 20))
    again, ids = describe(("0 0", 20))
    assert scenes == again
    assert all(split(scene) == "train" for scene in scenes)
    assert np.array_equal(llm, ids[0])
    assert llm.shape == clip.shape == (20 * CAPTIONS, 32)
    assert np.array_equal(valid, (llm != PAD_ID).sum(axis=1))
    assert valid.min() >= 4  # the shortest caption is "blue star rests", and its end


def test_a_star_is_in_more_than_half_of_the_scenes() -> None:
    scenes, _ = describe(("0 0", 400))
    assert 0.5 < sum(map(has_star, scenes)) / 400 < 0.65
    assert any(len({thing.shape for thing in scene.things}) == 2 for scene in scenes)


def test_clips_are_the_posteriors_means(pool: Pool) -> None:
    """As in training: autocast, without gradients, which has convolutions in fp32 on a CPU.

    What is left is the pool's rounding to fp16.
    """
    from tiny.render import render_batch

    vae = new_vae().requires_grad_(False)
    scenes, _ = describe(("0 0", CLIPS))
    with torch.no_grad(), autocast(torch.device("cpu")):
        mean, _ = vae.encode(render_batch(scenes, *MAIN)).chunk(2, dim=1)
    assert pool.size == MAIN
    torch.testing.assert_close(pool.latents.float(), mean.float() * 0.476986, atol=1e-6, rtol=2**-10)


def test_each_clip_is_drawn_with_one_of_its_own_captions(pool: Pool) -> None:
    torch.manual_seed(0)
    empty = Tokenizers().encode([""])
    clips, texts = pool.draw(50, empty, drop=0.0)
    assert torch.equal(texts.llm_ids[:, : VIDEO_TEMPLATE.crop_start], empty.llm_ids[:, :95].expand(50, -1))
    for clip, ids, valid in zip(clips, texts.llm_ids[:, 95:], texts.valid, strict=True):
        owner = next(i for i in range(CLIPS) if torch.equal(pool.latents[i].float(), clip))
        rows = slice(owner * CAPTIONS, (owner + 1) * CAPTIONS)
        matches = (pool.llm_ids[rows] == ids).all(dim=1)
        assert matches.any()
        assert valid in pool.valid[rows][matches]


def test_dropped_captions_are_the_empty_prompt(pool: Pool) -> None:
    empty = Tokenizers().encode([""])
    _, texts = pool.draw(4, empty, drop=1.0)
    assert torch.equal(texts.llm_ids, empty.llm_ids.expand(4, -1))
    assert texts.valid.tolist() == [1] * 4
    assert torch.equal(texts.clip_ids, empty.clip_ids.expand(4, -1))


def test_a_still_is_a_clips_first_latent_frame(pool: Pool) -> None:
    stills, texts = draw(pool, 8, Tokenizers().encode([""]), drop=0.0, still=True)
    assert stills.shape == (8, 16, 1, 8, 8)
    assert len(texts.valid) == 8
    for still in stills:
        assert any(torch.equal(still, latents[:, :1].float()) for latents in pool.latents)
