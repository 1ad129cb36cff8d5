"""Batches in training against hyvideo_rt's own pipeline: the same prompt and seed must be the same video."""

import contextlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from hyvideo_rt.buckets import Bucket
from hyvideo_rt.models.dit import Rope
from hyvideo_rt.pipeline import Pipeline
from hyvideo_rt.sampling import SamplingParams
from hyvideo_rt.text import TextEncoder
from hyvideo_rt.weights.checkpoint import Checkpoint
from tiny.card import model_card
from tiny.distill import distillation_loss, draw_levels, student_of
from tiny.networks import TINY, Denoiser, new_denoiser, new_vae, save, start_closed
from tiny.publish import publish
from tiny.resume import denoiser_of, teacher_of
from tiny.sample import guided, rope_for, sample
from tiny.texts import Texts, Tokenizers
from tiny.train_dit import draw_sigmas, flow_loss

PROMPTS = ["a red circle moves right on a white background", "Two words."]
BUCKET = Bucket(32, 48, 5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("published") / "tiny"
    publish(new_vae(), new_denoiser(), target, model_card(scores=None, trained_on=None))
    return target


def rounded(denoiser: Denoiser) -> Denoiser:
    return denoiser.half().float().requires_grad_(False).eval()


def test_the_published_folder_is_small_and_opens(folder: Path) -> None:
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 16_000_000
    Checkpoint.open(folder).check(skip_layers=0)
    assert "random" in (folder / "README.md").read_text()


def test_a_batch_makes_the_pipelines_videos(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tiny.sample.autocast", contextlib.nullcontext)
    pipeline = Pipeline.load(Checkpoint.open(folder), torch.device("cpu"))
    texts, empty = Tokenizers().encode(PROMPTS), Tokenizers().encode([""])
    vae = new_vae().half().float().requires_grad_(False)
    videos = sample(vae, rounded(new_denoiser()), texts, empty, scale=6.0, bucket=BUCKET, seed=5)
    for i, prompt in enumerate(PROMPTS):
        frames = pipeline.generate(prompt, SamplingParams(BUCKET, 5 + i, num_inference_steps=20)).frames
        batch = ((videos[i] / 2 + 0.5).clamp(0, 1) * 255).permute(1, 2, 3, 0).numpy()
        assert np.abs(frames.astype(float) - batch).max() < 1.2  # the pipeline truncates to whole numbers
        assert frames.std() > 5


def test_text_is_what_the_pipeline_encodes(folder: Path) -> None:
    pipeline = Pipeline.load(Checkpoint.open(folder), torch.device("cpu"))
    encoder: TextEncoder = pipeline.text_encoder
    texts = Tokenizers().encode([*PROMPTS, ""])
    assert texts.valid[2] == 1
    denoiser = rounded(new_denoiser())
    states, pooled = denoiser.llm(texts.llm_ids)[:, 95:], denoiser.clip(texts.clip_ids)
    for i, prompt in enumerate([*PROMPTS, ""]):
        expected = encoder.encode(prompt)
        torch.testing.assert_close(states[i : i + 1, : texts.valid[i]], expected.states, atol=1e-5, rtol=0)
        torch.testing.assert_close(pooled[i : i + 1], expected.pooled, atol=1e-5, rtol=0)


def test_training_starts_with_the_velocity_zero() -> None:
    denoiser = new_denoiser(guidance_embed=False)
    start_closed(denoiser)
    torch.manual_seed(0)
    clips, texts = torch.randn(2, 16, 2, 4, 6), Tokenizers().encode(PROMPTS)
    loss = flow_loss(denoiser, clips, texts)
    assert loss.item() == pytest.approx(2, abs=0.3)  # variance of noise - clips
    loss.backward()
    assert denoiser.dit.final_layer.linear.weight.grad is not None
    assert denoiser.dit.final_layer.linear.weight.grad.abs().max() > 0


def test_a_student_starts_as_its_teacher_at_any_scale(tmp_path: Path) -> None:
    teacher = new_denoiser(3, guidance_embed=False)
    save(tmp_path, "teacher", teacher)
    student = student_of(tmp_path)
    texts = Tokenizers().encode(PROMPTS)
    x, sigma = torch.randn(2, 16, 2, 4, 6), torch.tensor([0.9, 0.4])
    expected = rounded(teacher)(x, sigma, texts, rope_for(x))
    with torch.no_grad():
        for scale in (1.0, 8.0):
            out = student(x, sigma, texts, rope_for(x), torch.full((2,), scale))
            torch.testing.assert_close(out, expected)
    assert expected.std() > 0.1


def test_a_student_goes_on_until_its_teacher_is_trained_again(tmp_path: Path) -> None:
    student = new_denoiser(5)
    save(tmp_path, "teacher", new_denoiser(3, guidance_embed=False))
    save(tmp_path, "student-raw", student)
    name = "dit.img_in.proj.weight"
    assert torch.equal(student_of(tmp_path).state_dict()[name], rounded(student).state_dict()[name])
    teacher = new_denoiser(4, guidance_embed=False)
    save(tmp_path, "teacher", teacher)
    assert torch.equal(student_of(tmp_path).state_dict()[name], rounded(teacher).state_dict()[name])


def test_a_student_of_a_new_teacher_keeps_the_guidance_that_it_knows(tmp_path: Path) -> None:
    earlier, teacher = new_denoiser(5), new_denoiser(4, guidance_embed=False)
    save(tmp_path, "student-raw", earlier)
    save(tmp_path, "teacher", teacher)
    student = student_of(tmp_path)
    texts = Tokenizers().encode(PROMPTS)
    x, sigma = torch.randn(2, 16, 2, 4, 6), torch.tensor([0.9, 0.4])
    with torch.no_grad():
        expected = rounded(teacher)(x, sigma, texts, rope_for(x))
        one, six = (student(x, sigma, texts, rope_for(x), torch.full((2,), s)) for s in (1.0, 6.0))
    torch.testing.assert_close(one, expected, atol=1e-5, rtol=0)
    assert (six - one).abs().max() > 1e-3


def test_guidance_of_one_is_the_prompt_alone_and_more_goes_beyond_it() -> None:
    teacher = new_denoiser(3, guidance_embed=False).requires_grad_(False)
    texts, empty = Tokenizers().encode(PROMPTS), Tokenizers().encode([""])
    x, sigma = torch.randn(2, 16, 2, 4, 6), torch.tensor([0.9, 0.8])
    rope = rope_for(x)
    v_text = teacher(x, sigma, texts, rope)
    one, three = (guided(teacher, x, sigma, texts, empty, rope, torch.full((2,), s)) for s in (1.0, 3.0))
    torch.testing.assert_close(one, v_text, atol=1e-5, rtol=0)
    v_empty = teacher(x, sigma, Tokenizers().encode(["", ""]), rope)
    torch.testing.assert_close(three - v_empty, 3 * (v_text - v_empty), atol=1e-4, rtol=0)
    assert (v_text - v_empty).abs().max() > 1e-3


def test_guidance_does_not_count_where_little_noise_is_left() -> None:
    teacher = new_denoiser(3, guidance_embed=False).requires_grad_(False)
    texts, empty = Tokenizers().encode(PROMPTS), Tokenizers().encode([""])
    x, sigma = torch.randn(2, 16, 2, 4, 6), torch.tensor([0.9, 0.4])
    early, late = guided(teacher, x, sigma, texts, empty, rope_for(x), torch.full((2,), 6.0))
    v_early, v_late = teacher(x, sigma, texts, rope_for(x))
    torch.testing.assert_close(late, v_late, atol=1e-5, rtol=0)
    assert (early - v_early).abs().max() > 1e-3


def test_a_student_learns_from_its_teacher_above_and_from_the_clips_below() -> None:
    teacher = new_denoiser(3, guidance_embed=False).requires_grad_(False)
    texts, empty = Tokenizers().encode(PROMPTS), Tokenizers().encode([""])
    clips = torch.randn(2, 16, 2, 4, 6)

    class Perfect(Denoiser):
        part = 1.0

        def forward(
            self, x: Tensor, sigma: Tensor, texts: Texts, rope: Rope, guidance: Tensor | None = None
        ) -> Tensor:
            assert guidance is not None
            above = guided(teacher, x[:2], sigma[:2], texts, empty, rope, guidance[:2])
            noise_part = sigma[2:].view(-1, 1, 1, 1, 1)
            return torch.cat((above, self.part * (x[2:] - clips) / noise_part))

    student = Perfect(replace(TINY.dit, guidance_embed=True))
    assert distillation_loss(student, teacher, clips, texts, empty) < 1e-6
    student.part = 0.0
    loss = distillation_loss(student, teacher, clips, texts, empty)
    assert loss.item() == pytest.approx(1, abs=0.2)  # half of the variance of noise - clips


def test_half_of_a_students_noise_levels_are_where_guidance_counts() -> None:
    torch.manual_seed(0)
    sigmas = draw_levels(10_000, torch.device("cpu"))
    above, below = sigmas.chunk(2)
    assert 0.719 < float(above.min()) < 0.721 < 0.999 < float(above.max()) <= 1
    assert 0 <= float(below.min()) < 0.01 < 0.719 < float(below.max()) < 0.721
    assert float(below.median()) == pytest.approx(0.5208, abs=0.005)  # shifted, half-way before


def test_noise_levels_are_those_that_sampling_visits() -> None:
    torch.manual_seed(0)
    sigmas = draw_sigmas(10_000, torch.device("cpu"))
    assert 0 <= float(sigmas.min()) < 0.01
    assert 0.99 < float(sigmas.max()) <= 1
    median = 0.8 * (sigmas > 0.875).float().mean()  # the shifted median
    assert 0.3 < float(median) < 0.4


def test_texts_are_read_once_for_several_noise_levels() -> None:
    denoiser = new_denoiser(3, guidance_embed=False).requires_grad_(False)
    texts = Tokenizers().encode(PROMPTS)
    x, sigma = torch.randn(4, 16, 2, 4, 6), torch.tensor([0.9, 0.4, 0.6, 0.1])
    rope = rope_for(x)
    parts = [denoiser(x[i : i + 2], sigma[i : i + 2], texts, rope) for i in (0, 2)]
    torch.testing.assert_close(denoiser(x, sigma, texts, rope), torch.cat(parts), atol=1e-5, rtol=0)


def test_a_published_model_goes_on_as_it_was(folder: Path) -> None:
    """The teacher, which has no guidance embedded, does what the student does at guidance 1."""
    student = denoiser_of(Pipeline.load(Checkpoint.open(folder), torch.device("cpu")))
    expected, teacher = rounded(new_denoiser()), teacher_of(student)
    assert student.state_dict().keys() == expected.state_dict().keys()
    for name, tensor in student.state_dict().items():
        assert torch.equal(tensor, expected.state_dict()[name]), name
    texts = Tokenizers().encode(PROMPTS)
    x, sigma = torch.randn(2, 16, 2, 4, 6), torch.tensor([0.9, 0.4])
    with torch.no_grad():
        at_one = student(x, sigma, texts, rope_for(x), torch.ones(2))
        torch.testing.assert_close(teacher(x, sigma, texts, rope_for(x)), at_one, atol=1e-5, rtol=0)
