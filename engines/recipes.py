"""What is best on which GPU, by the name that people know it under: one file each in `recipes/`.

A recipe says which of its choices have been measured there; the others are what we expect.
"""

import tomllib
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, get_args

from hyvideo_rt.buckets import PRESETS
from hyvideo_rt.engines.spec import BackendName, Precision
from hyvideo_rt.errors import InvalidRequest

FOLDER = Path(__file__).parent / "recipes"


@dataclass(frozen=True)
class Recipe:
    """gpu is a part of the driver's name, target its compute capability; dit and vae are precisions.

    wide names the layers that stay in bf16 where the DiT is in fp8 (see EngineSpec).
    """

    sku: str
    gpu: str
    target: str
    memory_gib: int
    backend: BackendName
    dit: Precision
    vae: Precision
    wide: tuple[str, ...]
    presets: tuple[str, ...]
    measured: tuple[str, ...]


@cache
def recipes() -> dict[str, Recipe]:
    return {path.stem: _read(path) for path in sorted(FOLDER.glob("*.toml"))}


def recipe_of(sku: str) -> Recipe:
    """Raises InvalidRequest for a name without a recipe."""
    if sku not in recipes():
        raise InvalidRequest(f"got the SKU {sku!r}, expected one of {', '.join(recipes())}")
    return recipes()[sku]


def recipe_for(device_name: str) -> Recipe | None:
    """Of the GPU that the driver calls so; None if it has none. A CPU has the empty name."""
    for recipe in recipes().values():
        if recipe.gpu in device_name if recipe.gpu else not device_name:
            return recipe
    return None


def _read(path: Path) -> Recipe:
    content = tomllib.loads(path.read_text())
    values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in content.items()}
    recipe = Recipe(sku=path.stem, **values)
    assert recipe.backend in get_args(BackendName), path
    assert {recipe.dit, recipe.vae} <= set(get_args(Precision)), path
    assert set(recipe.presets) <= set(PRESETS), path
    assert set(recipe.measured) <= {field.name for field in fields(Recipe)}, path
    return recipe
