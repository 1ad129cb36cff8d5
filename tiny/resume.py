"""The published model as checkpoints again, so that training goes on where it ended.

`python -m tiny.resume RUN` fills the new folder RUN from the package, `--model FOLDER` from another one. The
teacher is the student at guidance 1, with the embedding of that number in a bias.
"""

import argparse
from pathlib import Path

import torch

from hyvideo_rt.cli.model_choice import embedded_tiny
from hyvideo_rt.models.llama import LlamaEncoder
from hyvideo_rt.pipeline import Pipeline
from hyvideo_rt.sampling import TIMESTEPS
from hyvideo_rt.weights.checkpoint import Checkpoint
from tiny.networks import GUIDANCE, Denoiser, new_denoiser, save


def denoiser_of(pipeline: Pipeline) -> Denoiser:
    """The pipeline's networks as they are trained."""
    denoiser = new_denoiser()
    llm, clip = pipeline.text_encoder.llm, pipeline.text_encoder.clip
    assert isinstance(llm, LlamaEncoder)
    denoiser.llm.load_state_dict(llm.state_dict())
    denoiser.clip.load_state_dict(clip.state_dict())
    denoiser.dit.load_state_dict(pipeline.dit.state_dict())
    return denoiser


@torch.no_grad()
def teacher_of(student: Denoiser) -> Denoiser:
    """A denoiser without embedded guidance that does what the student does at guidance 1."""
    assert student.dit.guidance_in is not None
    weights = {n: t.clone() for n, t in student.state_dict().items() if not n.startswith(GUIDANCE)}
    weights["dit.vector_in.out_layer.bias"] += student.dit.guidance_in(torch.tensor([TIMESTEPS]))[0]
    teacher = new_denoiser(guidance_embed=False)
    teacher.load_state_dict(weights)
    return teacher


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="the folder of checkpoints")
    parser.add_argument("--model", type=Path, help="a model's folder; the embedded one if left out")
    args = parser.parse_args()
    checkpoint = Checkpoint.open(args.model) if args.model else embedded_tiny()
    pipeline = Pipeline.load(checkpoint, torch.device("cpu"))
    student = denoiser_of(pipeline)
    save(args.run, "vae", pipeline.vae)
    for stage, denoiser in (("teacher", teacher_of(student)), ("student", student)):
        save(args.run, stage, denoiser)
        save(args.run, f"{stage}-raw", denoiser)


if __name__ == "__main__":
    main()
