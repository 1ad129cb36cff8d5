"""Scenes in words: a small grammar whose order, synonyms and wording vary.

A third of the captions are plain, "a red circle moves right on a white background"; the others choose each of
their parts anew. Colour, shape and motion are always said, the size and the background only sometimes: what a
caption leaves out is free.
"""

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from random import Random

from tiny.palette import BACKGROUNDS, COLOURS
from tiny.world import Scene, Thing

PLAIN = 0.35
SAY_SIZE = 0.4
SAY_BACKGROUND = 0.85
CAPITALISED = 0.2
FULL_STOP = 0.25

SHAPE_WORDS = {
    "circle": ("circle", "circle", "disc", "disk", "ball"),
    "square": ("square", "square", "square", "box", "block"),
    "triangle": ("triangle",),
    "star": ("star",),
}
COLOUR_WORDS = {
    "red": ("red", "red", "red", "crimson"),
    "yellow": ("yellow", "yellow", "yellow", "golden"),
    "purple": ("purple", "purple", "violet"),
}
SIZE_WORDS = {"small": ("small", "small", "little", "tiny"), "large": ("large", "large", "big")}
BACKGROUND_WORDS = {
    "grey": ("grey", "gray"),
    "light blue": ("light blue", "pale blue"),
    "light green": ("light green", "pale green"),
}
DIRECTION_WORDS = {
    "left": (
        "left",
        "left",
        "to the left",
        "leftwards",
        "leftward",
        "towards the left",
        "from right to left",
    ),
    "right": (
        "right",
        "right",
        "to the right",
        "rightwards",
        "rightward",
        "towards the right",
        "from left to right",
    ),
    "up": ("up", "up", "upwards", "upward", "to the top", "towards the top", "from bottom to top"),
    "down": (
        "down",
        "down",
        "downwards",
        "downward",
        "to the bottom",
        "towards the bottom",
        "from top to bottom",
    ),
    "up-left": (
        "up and left",
        "up and to the left",
        "diagonally up and left",
        "to the upper left",
        "to the top left",
    ),
    "up-right": (
        "up and right",
        "up and to the right",
        "diagonally up and right",
        "to the upper right",
        "to the top right",
    ),
    "down-left": (
        "down and left",
        "down and to the left",
        "diagonally down and left",
        "to the lower left",
        "to the bottom left",
    ),
    "down-right": (
        "down and right",
        "down and to the right",
        "diagonally down and right",
        "to the lower right",
        "to the bottom right",
    ),
}
VERBS = (  # one does, doing, many do
    ("moves", "moving", "move"),
    ("moves", "moving", "move"),
    ("slides", "sliding", "slide"),
    ("drifts", "drifting", "drift"),
    ("glides", "gliding", "glide"),
    ("goes", "going", "go"),
    ("travels", "travelling", "travel"),
    ("floats", "floating", "float"),
)
OWN_VERBS = {  # they say the direction themselves
    "up": (("rises", "rising", "rise"), ("climbs", "climbing", "climb")),
    "down": (("falls", "falling", "fall"), ("sinks", "sinking", "sink")),
    "still": (
        ("stands still", "standing still", "stand still"),
        ("stays still", "staying still", "stay still"),
        ("does not move", "not moving", "do not move"),
        ("stays in place", "staying in place", "stay in place"),
        ("rests", "resting", "rest"),
    ),
}
OWN_VERB = 0.25  # how often, where there is a choice
OPENERS = ("a video of", "a clip of", "an animation of")
GLUE = ("a", "an", "one", "and", "while", "both")  # what the functions below say by themselves
BEFORE = ("on {}, ", "on a {} background, ", "against a {} background, ", "{} background, ")
AFTER = (
    " on a {} background",
    " on a {} background",
    " against a {} background",
    " over a {} background",
    " with a {} background",
    " on {}",
    ", {} background",
    ", {} backdrop",
)


def caption(scene: Scene, rng: Random) -> str:
    """One caption of the scene."""
    text = _plain(scene, rng) if rng.random() < PLAIN else _varied(scene, rng)
    if rng.random() < CAPITALISED:
        text = text[0].upper() + text[1:]
    return text + "." if rng.random() < FULL_STOP else text


def canonical(scene: Scene) -> str:
    """The plainest caption: "a red circle moves right on a white background"."""
    return (
        f"{' and '.join(_plain_clause(thing) for thing in scene.things)} on a {scene.background} background"
    )


def _plain(scene: Scene, rng: Random) -> str:
    if rng.random() >= SAY_SIZE:
        return canonical(scene)
    clauses = [_plain_clause(thing, size=thing.size) for thing in scene.things]
    return f"{' and '.join(clauses)} on a {scene.background} background"


def _plain_clause(thing: Thing, size: str = "") -> str:
    words = " ".join(filter(None, (size, thing.colour, thing.shape)))
    motion = "stands still" if thing.motion == "still" else f"moves {DIRECTION_WORDS[thing.motion][0]}"
    return f"{_article(words)} {words} {motion}"


def _varied(scene: Scene, rng: Random) -> str:
    """A sentence ("... slides up") or a noun phrase ("a clip of ... sliding up"), perhaps with its place."""
    doing = rng.random() < 0.4
    opener = rng.choice(OPENERS) + " " if doing and rng.random() < 0.3 else ""
    return _placed(scene.background, opener + _actions(scene.things, doing, rng), rng)


def _actions(things: Sequence[Thing], doing: bool, rng: Random) -> str:
    say_size = rng.random() < SAY_SIZE
    subjects = [_subject(thing, say_size, rng) for thing in things]
    if len(things) == 2 and things[0].motion == things[1].motion and rng.random() < 0.6:
        both = "both " if rng.random() < 0.3 else ""
        return f"{' and '.join(subjects)} {both}{_motion(things[0].motion, 1 if doing else 2, rng)}"
    clauses = [
        f"{subject} {_motion(thing.motion, int(doing), rng)}"
        for subject, thing in zip(subjects, things, strict=True)
    ]
    return rng.choice((" and ", " and ", " while ", ", ")).join(clauses)


def _subject(thing: Thing, say_size: bool, rng: Random) -> str:
    words = [rng.choice(SIZE_WORDS[thing.size])] if say_size else []
    words += [_synonym(COLOUR_WORDS, thing.colour, rng), rng.choice(SHAPE_WORDS[thing.shape])]
    text = " ".join(words)
    determiner = rng.choice((_article(text) + " ", _article(text) + " ", _article(text) + " ", "one ", ""))
    return determiner + text


def _motion(motion: str, form: int, rng: Random) -> str:
    """The verb in one of the three forms of VERBS, and where to."""
    if motion == "still" or (motion in OWN_VERBS and rng.random() < OWN_VERB):
        return rng.choice(OWN_VERBS[motion])[form]
    return f"{rng.choice(VERBS)[form]} {rng.choice(DIRECTION_WORDS[motion])}"


def _placed(background: str, text: str, rng: Random) -> str:
    if rng.random() >= SAY_BACKGROUND:
        return text
    name = _synonym(BACKGROUND_WORDS, background, rng)
    if rng.random() < 0.25:
        return rng.choice(BEFORE).format(name) + text
    return text + rng.choice(AFTER).format(name)


def _synonym(words: Mapping[str, tuple[str, ...]], name: str, rng: Random) -> str:
    return rng.choice(words.get(name, (name,)))


def _article(text: str) -> str:
    return "an" if text[0] in "aeiou" else "a"


def words() -> list[str]:
    """Every word that a caption can hold, sorted."""
    tables: tuple[Iterable[Iterable[str]], ...] = (
        SHAPE_WORDS.values(),
        COLOUR_WORDS.values(),
        SIZE_WORDS.values(),
        BACKGROUND_WORDS.values(),
        DIRECTION_WORDS.values(),
        VERBS,
        *OWN_VERBS.values(),
        (COLOURS, BACKGROUNDS, OPENERS, BEFORE, AFTER, GLUE),
    )
    phrases = itertools.chain.from_iterable(itertools.chain.from_iterable(tables))
    return sorted({word for phrase in phrases for word in re.findall(r"[a-z]+", phrase)})
