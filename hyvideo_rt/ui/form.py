"""The fields: those of the original's page, with the sizes and lengths of the model that is served."""

from collections.abc import Sequence

from hyvideo_rt.ui.client import Model, Video, Wanted
from hyvideo_rt.ui.words import Words

FPS = 24
MAX_STEPS = 100  # as the original's slider; the API takes more
SHORT = {129: 65}  # the original offers both lengths; presets have the long one
RANDOM_SEED = -1

Choices = list[tuple[str, str]]
Values = tuple[str, str, str, int, int, float, float, float, str]


def size_choices(model: Model, words: Words) -> Choices:
    """Sizes that can be made here, those that need no waiting marked."""
    choices: dict[str, str] = {}
    for size in model.sizes:
        if size.possible:
            mark = words.ready if size.warm else words.built if size.built else ""
            choices[size.size] = max(choices.get(size.size, ""), mark)
    return [(size.replace("x", "×") + (f" · {mark}" if mark else ""), size) for size, mark in choices.items()]


def length_choices(model: Model, size: str, words: Words) -> Choices:
    own = {other.num_frames for other in model.sizes if other.size == size and other.possible}
    return [(length_label(n, words), str(n)) for n in sorted(own | {SHORT[n] for n in own & set(SHORT)})]


def length_label(num_frames: int, words: Words) -> str:
    return words.frames.format(seconds=f"{num_frames / FPS:.1f}", frames=num_frames)


def pick(choices: Choices, liked: str) -> str | None:
    """The liked value if it may be chosen, else the longest or last."""
    values = [value for _, value in choices]
    return liked if liked in values else values[-1] if values else None


def wanted(values: Sequence[object]) -> Wanted:
    """From the fields in their order on the page."""
    prompt, size, length, steps, seed, guidance, shift, embedded, negative = values
    number = RANDOM_SEED if seed is None else int(str(seed).partition(".")[0])
    return Wanted(
        prompt=str(prompt).strip(),
        size=str(size),
        num_frames=int(str(length)),
        steps=int(float(str(steps))),
        seed=None if number == RANDOM_SEED else number,
        true_cfg_scale=float(str(guidance)),
        flow_shift=float(str(shift)),
        guidance_scale=float(str(embedded)),
        negative_prompt=str(negative or ""),
    )


def values_of(video: Video) -> Values:
    """What the fields have to say to get this very video again."""
    return (
        video.prompt,
        video.size,
        str(video.num_frames),
        video.steps,
        video.seed,
        video.true_cfg_scale,
        video.flow_shift,
        video.guidance_scale,
        video.negative_prompt,
    )
