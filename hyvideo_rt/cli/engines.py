"""`hyvideo-rt engines`: what is in the store."""

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterator

import torch

from hyvideo_rt.cli.commands import format_table
from hyvideo_rt.cli.engine_choice import open_store
from hyvideo_rt.engines.backends import BACKENDS
from hyvideo_rt.engines.manifest import Manifest
from hyvideo_rt.engines.store import Engine, EngineStore
from hyvideo_rt.engines.target import target_of
from hyvideo_rt.errors import InvalidRequest

OTHER_DEVICE = "other device"


def engines(args: argparse.Namespace) -> int:
    store = open_store(args)
    if args.action == "inspect":
        return _inspect(store, args.name)
    found, broken = [], 0
    for engine in store.engines():
        if isinstance(engine, Engine):
            found.append(engine.manifest)
        else:
            broken += 1
            print(engine, file=sys.stderr)
    if args.action == "prune":
        return _prune(store, found)
    rows = [_row(manifest) for manifest in found]
    if args.json:
        print(json.dumps(rows, indent=2))
    elif rows:
        print(format_table(rows))
    if args.action == "verify":
        print(f"{len(found)} whole, {broken} moved to quarantine", file=sys.stderr)
    return 1 if broken else 0


def _inspect(store: EngineStore, name: str | None) -> int:
    for engine in store.engines():
        if isinstance(engine, Engine) and engine.manifest.spec.name == name:
            print(json.dumps(dataclasses.asdict(engine.manifest), indent=2))
            return 0
    raise InvalidRequest(
        f"got the engine {name!r}, which is not in {store.root}\n  see `hyvideo-rt engines list`"
    )


def _prune(store: EngineStore, found: list[Manifest]) -> int:
    stale = [manifest.spec.name for manifest in found if {*_reasons(manifest)} - {OTHER_DEVICE}]
    for name in stale:
        store.remove(name)
    print(f"{len(stale)} engines and {store.clear_rubbish()} other folders deleted", file=sys.stderr)
    return 0


def _row(manifest: Manifest) -> dict[str, object]:
    return {
        "engine": manifest.spec.name,
        "MB": round(manifest.size_bytes / 1e6, 1),
        "build s": manifest.build_s,
        "error": f"{manifest.parity['engine_error']:.1e}",
        "loads here": "; ".join(_reasons(manifest)) or "yes",
    }


def _reasons(manifest: Manifest) -> Iterator[str]:
    """Why this version does not load an engine on this machine."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if target_of(device) != manifest.spec.target:
        yield OTHER_DEVICE
    backend = BACKENDS[manifest.spec.backend]
    if manifest.source != backend.source():
        yield "other code"
    if manifest.libraries != backend.libraries(device):
        yield "other libraries"
