"""The key rules against the checked manifests of the full-size models."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hyvideo_rt.config import MODELS
from hyvideo_rt.weights.layouts import (
    KeyMap,
    KeyRule,
    diffusers_from_original,
    dit_key_rules,
    original_from_diffusers,
    same_names,
)

Manifest = Callable[[str], dict[str, Any]]
DISTILLED = MODELS["HYVideo-T/2-cfgdistill"].dit
BASE = MODELS["HYVideo-T/2"].dit


def as_manifest(rule: KeyRule) -> dict[str, Any]:
    if rule.swap_halves:
        return {"op": "swap_halves", "dim": 0, "to": rule.diffusers[0]}
    if rule.sizes:
        return {"op": "split", "dim": 0, "sizes": list(rule.sizes), "to": list(rule.diffusers)}
    return {"op": "rename", "to": rule.diffusers[0]}


def target_shapes(keys: KeyMap, stored: dict[str, Any]) -> dict[str, list[int]]:
    """Shapes of the targets; every stored row is used exactly once."""
    used: Counter[tuple[str, int]] = Counter()
    shapes = {}
    for target, pieces in keys.items():
        rows = 0
        for piece in pieces:
            total, *rest = stored[piece.name][0]
            assert piece.rows in (None, total), piece
            stop = total if piece.stop is None else piece.stop
            used.update((piece.name, row) for row in range(piece.start, stop))
            rows += stop - piece.start
        shapes[target] = [rows, *rest]
    assert set(used.values()) == {1}
    assert len(used) == sum(shape[0] for shape, _ in stored.values())
    return shapes


def test_rules_are_the_checked_bijection(manifest: Manifest) -> None:
    rules = list(dit_key_rules(DISTILLED))
    assert {rule.original: as_manifest(rule) for rule in rules} == manifest("map_dit_original_to_diffusers")
    assert Counter(as_manifest(rule)["op"] for rule in rules) == {
        "rename": 690,
        "split": 164,
        "swap_halves": 2,
    }
    assert len({name for rule in rules for name in rule.diffusers}) == 1264


def test_base_model_without_guidance(manifest: Manifest) -> None:
    original, diffusers = manifest("dit_original_base"), manifest("dit_diffusers_noguidance")
    assert {rule.original for rule in dit_key_rules(BASE)} == set(original)
    assert {name for rule in dit_key_rules(BASE) for name in rule.diffusers} == set(diffusers)


def test_both_directions_use_every_row_once_and_give_the_manifests_shapes(manifest: Manifest) -> None:
    config = replace(DISTILLED, num_double_blocks=1, num_single_blocks=1)  # all kinds of blocks; few rows
    names = {rule.original for rule in dit_key_rules(config)}
    original = {k: v for k, v in manifest("dit_original_cfgdistill").items() if k in names}
    names = {name for rule in dit_key_rules(config) for name in rule.diffusers}
    diffusers = {k: v for k, v in manifest("dit_diffusers_guidance").items() if k in names}
    assert target_shapes(original_from_diffusers(config), diffusers) == {k: v[0] for k, v in original.items()}
    assert target_shapes(diffusers_from_original(config), original) == {k: v[0] for k, v in diffusers.items()}


def test_vae_names_are_the_same_in_both_layouts(manifest: Manifest) -> None:
    vae = manifest("vae_original")
    assert {k: v[0] for k, v in vae.items()} == {k: v[0] for k, v in manifest("vae_diffusers").items()}
    assert {k: pieces[0].name for k, pieces in same_names(vae).items()} == {
        k: v["to"] for k, v in manifest("map_vae_original_to_diffusers").items()
    }
