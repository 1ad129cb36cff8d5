"""Whatever happens to a stored engine, it is loaded as it was built or not at all."""

import multiprocessing
import random
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from hyvideo_rt.engines.manifest import Manifest, TensorInfo
from hyvideo_rt.engines.spec import EngineSpec, digest
from hyvideo_rt.engines.store import Engine, EngineStore, build_command, sha256_of
from hyvideo_rt.errors import EngineCorrupt, EngineError, EngineMismatch, EngineMissing, InvalidRequest

SPEC = EngineSpec("double_block", digest("tiny"), (80, 256), "bf16", "inductor", "sm90")
SOURCE, LIBRARIES = digest("code"), {"torch": "2.13.0"}
CODE = bytes(range(256)) * 8


def new_store(folder: Path) -> EngineStore:
    return EngineStore(folder / "engines", folder / "key")


def add(store: EngineStore, folder: Path, spec: EngineSpec = SPEC, code: bytes = CODE) -> Engine:
    artefact = folder / f"built-{random.getrandbits(64)}.pt2"
    artefact.write_bytes(code)
    manifest = Manifest(
        spec=spec,
        inputs=(TensorInfo("img", (1, 80, 192), "bf16"), TensorInfo("txt", (1, "L", 192), "bf16")),
        outputs=(TensorInfo("img", (1, 80, 192), "bf16"),),
        source=SOURCE,
        graph=digest("graph"),
        libraries=LIBRARIES,
        built_on={"device": "CPU"},
        build_s=1.5,
        peak_bytes=10,
        scratch_bytes=20,
        parity={"where": "device", "max_error": 1e-6},
        artefact="engine.pt2",
        size_bytes=len(code),
        sha256=sha256_of(artefact),
    )
    return store.save(manifest, artefact)


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    saved = add(store, tmp_path)
    loaded = new_store(tmp_path).load(SPEC, SOURCE, LIBRARIES)
    assert loaded == saved
    assert loaded.path.read_bytes() == CODE
    assert list(store.engines()) == [loaded]
    assert SPEC.name in str(loaded.path)
    assert list((tmp_path / "engines" / ".partial").iterdir()) == []


def test_the_newer_engine_replaces_the_older(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    add(store, tmp_path)
    add(store, tmp_path, code=b"newer")
    assert store.load(SPEC, SOURCE, LIBRARIES).path.read_bytes() == b"newer"


def test_a_missing_engine_names_the_command_that_builds_it(tmp_path: Path) -> None:
    with pytest.raises(
        EngineMissing, match=r"build --component double_block --preset tiny-square .*inductor"
    ):
        new_store(tmp_path).load(SPEC, SOURCE, LIBRARIES)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"target": "sm89"}, "target is sm90, expected sm89"),
        ({"precision": "fp8"}, "precision is bf16, expected fp8"),
        ({"shape": (81, 256)}, "shape is 80x256, expected 81x256"),
        ({"model": digest("other")}, "model is "),
        ({"backend": "openvino"}, "backend is inductor, expected openvino"),
    ],
)
def test_an_engine_for_something_else_is_a_mismatch(
    tmp_path: Path, change: dict[str, str], words: str
) -> None:
    store = new_store(tmp_path)
    add(store, tmp_path)
    with pytest.raises(EngineMismatch, match=words) as error:
        store.load(replace(SPEC, **change), SOURCE, LIBRARIES)  # type: ignore[arg-type]
    assert "hyvideo-rt build" in str(error.value)


def test_other_code_or_libraries_are_a_mismatch(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    add(store, tmp_path)
    with pytest.raises(EngineMismatch, match="source: code is"):
        store.load(SPEC, digest("newer code"), LIBRARIES)
    with pytest.raises(EngineMismatch, match=r"torch is 2\.13\.0, expected 2\.14\.0"):
        store.load(SPEC, SOURCE, {"torch": "2.14.0"})
    assert store.load(SPEC, SOURCE, LIBRARIES)


def files_of(engine: Engine) -> list[Path]:
    return sorted(engine.path.parent.iterdir())


def assert_refused(store: EngineStore, name: str = SPEC.name) -> str:
    """Loading fails, the folder is in quarantine, and the next load says that the engine is missing."""
    with pytest.raises(EngineCorrupt, match="build it again: hyvideo-rt build") as error:
        store.load(SPEC, SOURCE, LIBRARIES)
    assert not (store.root / name).exists()
    assert [path.name.split(".")[0] for path in (store.root / "quarantine").iterdir()] == [name]
    with pytest.raises(EngineMissing):
        store.load(SPEC, SOURCE, LIBRARIES)
    assert store.clear_rubbish() == 1
    return str(error.value)


def test_no_flipped_bit_gets_through(tmp_path: Path) -> None:
    rng, store = random.Random(0), new_store(tmp_path)
    for _ in range(200):
        path = rng.choice(files_of(add(store, tmp_path)))
        content = bytearray(path.read_bytes())
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        path.write_bytes(content)
        assert_refused(store)


def test_no_truncated_file_gets_through(tmp_path: Path) -> None:
    rng, store = random.Random(1), new_store(tmp_path)
    for i in range(50):
        path = rng.choice(files_of(add(store, tmp_path)))
        content = path.read_bytes()
        path.write_bytes(content[: 0 if i == 0 else rng.randrange(len(content))])
        assert_refused(store)


def swap_for_symlink(path: Path) -> None:
    target = path.with_name("elsewhere")
    path.rename(target)
    path.symlink_to(target)


def swap_folder_for_symlink(path: Path) -> None:
    target = path.parent.parent / ".elsewhere"
    path.parent.rename(target)
    path.parent.symlink_to(target)


def swap_for_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "symlink": (swap_for_symlink, "cannot be read"),
    "folder is a symlink": (swap_folder_for_symlink, "not a folder of its own"),
    "zero length": (lambda path: path.write_bytes(b""), "has 0 bytes"),
    "gone": (lambda path: path.unlink(), "cannot be read"),
    "no signature": (lambda path: path.with_name("manifest.sig").unlink(), "manifest.sig cannot be read"),
    "empty signature": (lambda path: path.with_name("manifest.sig").write_text(""), "signature"),
    "huge manifest": (lambda path: path.with_name("manifest.json").write_bytes(b" " * 2**21), "more than"),
    "a folder": (swap_for_folder, "not a plain file"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_named_and_kept_apart(tmp_path: Path, damage: str) -> None:
    store = new_store(tmp_path)
    spoil, words = DAMAGE[damage]
    spoil(add(store, tmp_path).path)
    assert words in assert_refused(store)


def test_an_engine_signed_elsewhere_is_refused(tmp_path: Path) -> None:
    add(new_store(tmp_path), tmp_path)
    other = EngineStore(tmp_path / "engines", tmp_path / "other-key")
    assert "signature" in assert_refused(other)


def test_the_same_key_elsewhere_is_accepted(tmp_path: Path) -> None:
    add(new_store(tmp_path), tmp_path)
    (tmp_path / "copied").write_bytes((tmp_path / "key").read_bytes())
    (tmp_path / "copied").chmod(0o600)
    assert EngineStore(tmp_path / "engines", tmp_path / "copied").load(SPEC, SOURCE, LIBRARIES)


def test_an_engine_under_another_name_is_refused(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    other = add(store, tmp_path, replace(SPEC, precision="fp16"))
    other.path.parent.rename(store.root / SPEC.name)
    assert "its manifest is that of" in assert_refused(store)


def test_a_store_that_others_can_write_to_is_refused(tmp_path: Path) -> None:
    add(new_store(tmp_path), tmp_path)
    (tmp_path / "engines").chmod(0o777)
    with pytest.raises(EngineError, match="others can write to it"):
        new_store(tmp_path)
    (tmp_path / "engines").chmod(0o700)
    (tmp_path / "key").chmod(0o644)
    with pytest.raises(EngineError, match="expected 0600"):
        new_store(tmp_path)
    (tmp_path / "key").chmod(0o600)
    (tmp_path / "key").write_bytes(b"short")
    with pytest.raises(EngineError, match="got 5 bytes"):
        new_store(tmp_path)


def test_a_manifest_of_another_format_is_a_mismatch(tmp_path: Path) -> None:
    content = add(new_store(tmp_path), tmp_path).manifest.to_bytes()
    with pytest.raises(EngineMismatch, match="another version"):
        Manifest.from_bytes(content.replace(b'"format": 2', b'"format": 3'))


def test_an_engine_of_another_format_is_listed_and_pruned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = new_store(tmp_path)
    add(store, tmp_path)
    monkeypatch.setattr("hyvideo_rt.engines.manifest.FORMAT", 3)
    (found,) = store.engines()
    assert isinstance(found, EngineCorrupt)
    assert "another version wrote it" in str(found)
    assert store.clear_rubbish() == 1


def test_rubbish_of_builders_that_died_is_cleared(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    dead = multiprocessing.Process(target=time.sleep, args=(0,))
    dead.start()
    dead.join()
    (store.root / ".partial" / f"{SPEC.name}.{dead.pid}.0a1b").mkdir()
    (store.root / ".partial" / f"{SPEC.name}.{multiprocessing.current_process().pid}.0a1b").mkdir()
    assert store.clear_rubbish() == 1
    assert len(list((store.root / ".partial").iterdir())) == 1


def build_and_load(folder: Path, seed: int, failures: "multiprocessing.Queue[str]") -> None:
    try:
        rng, store = random.Random(seed), new_store(folder)
        for _ in range(20):
            spec = replace(SPEC, shape=(rng.randrange(3), 256))
            with store.building(spec):
                add(store, folder, spec, code=rng.randbytes(100_000))
            store.load(spec, SOURCE, LIBRARIES)
    except Exception as error:
        failures.put(repr(error))


def test_eight_builders_at_once_leave_whole_engines(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    failures = context.Queue()
    builders = [context.Process(target=build_and_load, args=(tmp_path, i, failures)) for i in range(8)]
    for builder in builders:
        builder.start()
    for builder in builders:
        builder.join()
    assert failures.empty(), failures.get()
    found = list(new_store(tmp_path).engines())
    assert len(found) == 3
    assert all(isinstance(engine, Engine) for engine in found)


def test_unknown_words_in_a_spec_are_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"got the precision 'int4', expected one of fp32, bf16"):
        replace(SPEC, precision="int4")  # type: ignore[arg-type]


def test_the_command_that_builds_an_engine() -> None:
    options = "--component double_block --preset 720p-landscape --precision bf16 --backend inductor"
    assert build_command(replace(SPEC, shape=(118800, 256))) == f"hyvideo-rt build {options}"
    assert "--preset" not in build_command(replace(SPEC, component="vae_decoder_tile", shape=(5, 8, 8)))
