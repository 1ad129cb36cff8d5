import pytest

from hyvideo_rt.buckets import OFFICIAL_PRESETS
from hyvideo_rt.engines.recipes import recipe_for, recipe_of, recipes
from hyvideo_rt.errors import InvalidRequest


def test_every_recipe_is_whole() -> None:
    """Reading checks the names in it."""
    assert set(recipes()) == {
        *("h100", "h200", "a100", "b200", "l40s", "rtx4090", "rtx5090", "rtxpro6000", "cpu")
    }
    for recipe in recipes().values():
        if recipe.sku != "cpu":
            assert recipe.presets == tuple(OFFICIAL_PRESETS)
        assert (recipe.backend == "tensorrt_rtx") <= (recipe.target in ("sm80", "sm86", "sm89", "sm120"))


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
