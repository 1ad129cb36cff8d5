"""Where built engines live: one folder each, written aside and moved into place whole, checked at every load.

    ROOT/<spec.name>/manifest.json, manifest.sig, engine.*     an engine
    ROOT/.locks, ROOT/.partial, ROOT/quarantine                 what is being built, and what failed a check

Nothing is loaded that is not a plain file, signed, whole and exactly what was asked for.
"""

import contextlib
import fcntl
import hashlib
import os
import secrets
import shutil
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import get_args

from hyvideo_rt.buckets import PRESETS
from hyvideo_rt.engines.manifest import Manifest
from hyvideo_rt.engines.signature import is_signed, load_key, sign
from hyvideo_rt.engines.spec import Component, EngineSpec
from hyvideo_rt.errors import EngineCorrupt, EngineError, EngineMismatch, EngineMissing

MANIFEST, SIGNATURE = "manifest.json", "manifest.sig"
MANIFEST_LIMIT = 1 << 20  # bytes: a manifest has a few thousand
CHUNK = 1 << 20


@dataclass(frozen=True)
class Engine:
    """An engine in the store, checked: its manifest and the file to load."""

    manifest: Manifest
    path: Path


class EngineStore:
    """Raises EngineError for a folder that others can write to: they could replace what runs here."""

    def __init__(self, root: Path, key_file: Path) -> None:
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        found = root.stat()
        if found.st_uid != os.getuid() or found.st_mode & 0o022:
            raise EngineError(
                f"{root}: others can write to it, and engines are executable code\n"
                f"  chmod go-w {root}, or set HYVIDEO_ENGINE_DIR to a folder of your own"
            )
        self.root = root
        self._key = load_key(key_file)
        for name in (".locks", ".partial", "quarantine"):
            (root / name).mkdir(exist_ok=True, mode=0o700)

    def load(self, spec: EngineSpec, source: str, libraries: Mapping[str, str]) -> Engine:
        """The engine of exactly this spec, of this source and these library versions.

        Raises EngineMissing, EngineMismatch with the field and both values, or EngineCorrupt.
        """
        engine = self._checked(spec.name)
        if engine is None:
            raise self._missing(spec)
        _expect_same(engine.manifest, "spec", asdict(engine.manifest.spec), asdict(spec))
        _expect_same(engine.manifest, "source", {"code": engine.manifest.source}, {"code": source})
        _expect_same(engine.manifest, "library", engine.manifest.libraries, libraries)
        return engine

    def has(self, spec: EngineSpec) -> bool:
        """Whether something of this name is there; only `load` knows whether it is good."""
        return (self.root / spec.name).exists()

    def save(self, manifest: Manifest, artefact: Path) -> Engine:
        """Move the artefact and its manifest into the store, in place of an older engine of the same spec."""
        name = manifest.spec.name
        partial = self.root / ".partial" / f"{name}.{os.getpid()}.{secrets.token_hex(4)}"
        partial.mkdir(mode=0o700)
        try:
            shutil.move(artefact, partial / manifest.artefact)
            content = manifest.to_bytes()
            (partial / MANIFEST).write_bytes(content)
            (partial / SIGNATURE).write_text(sign(content, self._key))
            _sync(partial)
            with self._lock(name, exclusive=True):
                if (self.root / name).exists():
                    shutil.rmtree(self.root / name)
                partial.rename(self.root / name)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return Engine(manifest, self.root / name / manifest.artefact)

    @contextlib.contextmanager
    def building(self, spec: EngineSpec) -> Iterator[None]:
        """One builder per spec at a time, over all processes; the others wait."""
        with self._lock(f"{spec.name}.build", exclusive=True):
            yield

    def engines(self) -> Iterator[Engine | EngineCorrupt]:
        """Every engine, checked; those that failed have been moved to quarantine."""
        for name in self._names():
            try:
                engine = self._checked(name)
            except EngineCorrupt as error:
                yield error
            else:
                if engine:
                    yield engine

    def remove(self, name: str) -> None:
        with self._lock(name, exclusive=True):
            shutil.rmtree(self.root / name)

    def clear_rubbish(self) -> int:
        """Delete the quarantine and what builders that died have left; the number of folders deleted."""
        folders = [*(self.root / "quarantine").iterdir(), *self._abandoned()]
        for folder in folders:
            _delete(folder)
        return len(folders)

    def _names(self) -> list[str]:
        return sorted(
            p.name for p in self.root.iterdir() if not p.name.startswith(".") and p.name != "quarantine"
        )

    def _abandoned(self) -> Iterator[Path]:
        for folder in (self.root / ".partial").iterdir():
            process = int(folder.name.rsplit(".", 2)[1])
            if not Path(f"/proc/{process}").exists():
                yield folder

    @contextlib.contextmanager
    def _lock(self, name: str, *, exclusive: bool) -> Iterator[None]:
        descriptor = os.open(self.root / ".locks" / name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
            yield
        finally:
            os.close(descriptor)

    def _checked(self, name: str) -> Engine | None:
        """None if there is nothing of the name; EngineCorrupt for what is broken: it goes to quarantine."""
        with self._lock(name, exclusive=False), contextlib.suppress(_Broken):
            return _read(self.root / name, self._key)
        with self._lock(name, exclusive=True):
            try:
                return _read(self.root / name, self._key)
            except _Broken as error:
                raise self._quarantined(name, str(error)) from None

    def _quarantined(self, name: str, reason: str) -> EngineCorrupt:
        target = self.root / "quarantine" / f"{name}.{time.time_ns()}"
        (self.root / name).rename(target)
        return EngineCorrupt(f"{name}: {reason}; moved to {target}\n  build it again: {_build_named(name)}")

    def _missing(self, spec: EngineSpec) -> EngineError:
        """What there is instead: the engine that differs in the fewest fields."""
        wanted = asdict(spec)
        others = [
            engine.manifest.spec
            for engine in self.engines()
            if isinstance(engine, Engine) and engine.manifest.spec.component == spec.component
        ]
        if not others:
            return EngineMissing(f"no engine {spec.name} in {self.root}\n  build it: {build_command(spec)}")
        nearest = min(others, key=lambda other: len(_differences(asdict(other), wanted)))
        words = _differences(asdict(nearest), wanted)
        return EngineMismatch(
            f"no engine {spec.name} in {self.root}; the nearest is {nearest.name}: {'; '.join(words)}\n"
            f"  build it: {build_command(spec)}"
        )


def build_command(spec: EngineSpec) -> str:
    """The command line that makes an engine of the spec."""
    words = ["hyvideo-rt build", f"--component {spec.component}"]
    preset = next((n for n, bucket in PRESETS.items() if bucket.num_tokens == spec.shape[0]), None)
    if preset and spec.component != "vae_decoder_tile":
        words.append(f"--preset {preset}")
    return " ".join([*words, f"--precision {spec.precision}", f"--backend {spec.backend}"])


def _build_named(name: str) -> str:
    """The same from an engine's name alone, when nothing inside it can be trusted."""
    component = name.split("-")[0]
    return (
        f"hyvideo-rt build --component {component}"
        if component in get_args(Component)
        else "hyvideo-rt build"
    )


class _Broken(Exception):
    """Why a folder is not an engine."""


def _read(folder: Path, key: bytes) -> Engine | None:
    if not os.path.lexists(folder):
        return None
    if folder.is_symlink() or not folder.is_dir():
        raise _Broken("it is not a folder of its own")
    content = _plain_file(folder / MANIFEST, MANIFEST_LIMIT)
    signature = _plain_file(folder / SIGNATURE, MANIFEST_LIMIT).decode(errors="replace")
    if not is_signed(content, signature, key):
        raise _Broken("its manifest does not carry this store's signature")
    try:
        manifest = Manifest.from_bytes(content)
    except EngineMismatch as error:  # also of use to nobody here, and `prune` must find it
        raise _Broken(str(error)) from None
    if manifest.spec.name != folder.name:
        raise _Broken(f"its manifest is that of {manifest.spec.name}")
    path = folder / manifest.artefact
    size, sha256 = _hash(path)
    if size != manifest.size_bytes:
        raise _Broken(f"{path.name} has {size} bytes, its manifest says {manifest.size_bytes}")
    if sha256 != manifest.sha256:
        raise _Broken(f"{path.name} was altered: its SHA-256 is not that of its manifest")
    return Engine(manifest, path)


def sha256_of(path: Path) -> str:
    return _hash(path)[1]


def _hash(path: Path) -> tuple[int, str]:
    with _opened(path) as descriptor:
        found = hashlib.sha256()
        while chunk := os.read(descriptor, CHUNK):
            found.update(chunk)
        return os.fstat(descriptor).st_size, found.hexdigest()


def _plain_file(path: Path, limit: int) -> bytes:
    with _opened(path) as descriptor:
        if os.fstat(descriptor).st_size > limit:
            raise _Broken(f"{path.name} has more than {limit} bytes")
        return os.read(descriptor, limit)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise _Broken(f"{path.name} cannot be read: {error.strerror}") from None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise _Broken(f"{path.name} is not a plain file")
        yield descriptor
    finally:
        os.close(descriptor)


def _expect_same(
    manifest: Manifest, kind: str, found: Mapping[str, object], wanted: Mapping[str, object]
) -> None:
    words = _differences(found, wanted)
    if words:
        raise EngineMismatch(
            f"{manifest.spec.name} does not match in its {kind}: {'; '.join(words)}\n"
            f"  build it again: {build_command(manifest.spec)}"
        )


def _differences(found: Mapping[str, object], wanted: Mapping[str, object]) -> list[str]:
    names = sorted({*found, *wanted})
    return [
        f"{name} is {_words(found.get(name))}, expected {_words(wanted.get(name))}"
        for name in names
        if found.get(name) != wanted.get(name)
    ]


def _words(value: object) -> str:
    if isinstance(value, (tuple, list)):
        return "x".join(map(str, value)) or "none"
    return str(value)[:40]


def _sync(folder: Path) -> None:
    """On disk before the rename: after a power cut the engine is whole or not there."""
    for path in (*folder.iterdir(), folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _delete(path: Path) -> None:
    if path.is_symlink() or not path.is_dir():
        path.unlink()
    else:
        shutil.rmtree(path)
