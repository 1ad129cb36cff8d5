from dataclasses import replace

import pytest
import torch

from hyvideo_rt.buckets import OFFICIAL_PRESETS, Bucket
from hyvideo_rt.config import MODELS
from hyvideo_rt.engines.recipes import Recipe, recipe_for, recipe_of, recipes
from hyvideo_rt.errors import InvalidRequest
from hyvideo_rt.pipeline import Precision
from hyvideo_rt.plan import GIB, make_plan


def test_every_recipe_is_whole() -> None:
    """Reading checks the names in it."""
    assert set(recipes()) == {
        *("h100", "h200", "a100", "b200", "l40s", "rtx4090", "rtx5090", "rtxpro6000", "cpu")
    }
    for recipe in recipes().values():
        if recipe.sku != "cpu":
            assert set(recipe.presets) <= set(OFFICIAL_PRESETS)
        assert (recipe.backend == "tensorrt_rtx") <= (recipe.target in ("sm80", "sm86", "sm89", "sm120"))


GPUS = [recipe for recipe in recipes().values() if recipe.sku != "cpu"]


@pytest.mark.parametrize("recipe", GPUS, ids=lambda recipe: recipe.sku)
def test_what_a_recipe_lists_fits_its_memory_and_nothing_else_does(recipe: Recipe) -> None:
    """At its precision, with offload if need be: engines that nobody could use would be built otherwise."""
    model, gpu = MODELS["HYVideo-T/2-cfgdistill"], torch.device("cuda")
    precision = replace(Precision.default(gpu), fp8=recipe.dit == "fp8", wide=recipe.wide)

    def fits(bucket: Bucket) -> bool:
        plan = make_plan(model, bucket, precision, gpu, offload=True)
        return plan.peak_bytes <= recipe.memory_gib * GIB

    assert {name for name, bucket in OFFICIAL_PRESETS.items() if fits(bucket)} == set(recipe.presets)


@pytest.mark.parametrize(
    ("device", "sku"),
    [
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA GeForce RTX 4090", "rtx4090"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "rtxpro6000"),
        ("", "cpu"),
    ],
)
def test_a_device_finds_its_recipe(device: str, sku: str) -> None:
    recipe = recipe_for(device)
    assert recipe is not None
    assert recipe.sku == sku


def test_a_device_without_a_recipe_and_a_sku_without_one() -> None:
    assert recipe_for("NVIDIA GeForce GTX 1080") is None
    with pytest.raises(InvalidRequest, match="got the SKU 'rtx4091', expected one of a100, b200, cpu"):
        recipe_of("rtx4091")
