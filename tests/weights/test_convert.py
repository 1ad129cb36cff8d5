"""Converting: bit for bit there and back, read by diffusers itself, and all or nothing at the target."""

import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_checkpoints import PUBLISHED_HEADS, SMALL_HEADS, random_states, write_original, write_with_diffusers
from torch import Tensor

from hyvideo_rt.errors import OutputError, WeightsError
from hyvideo_rt.weights.checkpoint import Checkpoint
from hyvideo_rt.weights.checkpoint_files import ORIGINAL_DIT
from hyvideo_rt.weights.convert import convert

STATES = random_states(PUBLISHED_HEADS, torch.bfloat16)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("original")
    write_original(folder, PUBLISHED_HEADS, STATES, "language_model.model.")
    return folder


def tensors_below(folder: Path) -> dict[str, Tensor]:
    """Every stored tensor under its component's folder and name, whatever its shard."""
    return {
        f"{path.parent.relative_to(folder)}/{name}": tensor
        for path in sorted(folder.rglob("*.safetensors"))
        for name, tensor in load_file(path).items()
    }


def assert_same_tensors(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    for name, tensor in a.items():
        assert tensor.dtype == b[name].dtype, name
        assert torch.equal(tensor, b[name]), name


def test_diffusers_to_original_and_back_is_bitwise_equal(tmp_path: Path) -> None:
    write_with_diffusers(tmp_path / "a", SMALL_HEADS)
    convert(Checkpoint.open(tmp_path / "a"), tmp_path / "b", "original")
    middle = Checkpoint.open(tmp_path / "b")
    assert (middle.layout, middle.config) == ("original", SMALL_HEADS)
    convert(middle, tmp_path / "c", "diffusers", shard_bytes=200_000)
    clip = load_file(tmp_path / "a" / "text_encoder_2" / "model.safetensors")  # we write upstream's prefix
    save_file(
        {f"text_model.{name.removeprefix('text_model.')}": tensor for name, tensor in clip.items()},
        tmp_path / "a" / "text_encoder_2" / "model.safetensors",
    )
    assert_same_tensors(tensors_below(tmp_path / "a"), tensors_below(tmp_path / "c"))
    assert len(list((tmp_path / "c" / "transformer").glob("*.safetensors"))) > 2
    for name in ("tokenizer", "tokenizer_2"):
        assert (tmp_path / "a" / name / "tokenizer.json").read_bytes() == (
            tmp_path / "c" / name / "tokenizer.json"
        ).read_bytes()


def test_original_pickles_to_diffusers_keep_values_and_dtypes(original: Path, tmp_path: Path) -> None:
    convert(Checkpoint.open(original), tmp_path / "out", "diffusers")
    out = Checkpoint.open(tmp_path / "out")
    assert out.config == PUBLISHED_HEADS
    stored = tensors_below(tmp_path / "out")
    assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}
    assert not any("vision" in name or "lm_head" in name or "position_ids" in name for name in stored)
    for name, value in out.load_dit("cpu", torch.bfloat16).state_dict().items():
        assert torch.equal(value, STATES["dit"][name]), name
    convert(out, tmp_path / "back", "original")
    back = load_file(tmp_path / "back" / ORIGINAL_DIT)
    assert_same_tensors(back, STATES["dit"])


def test_diffusers_and_transformers_read_what_we_wrote(original: Path, tmp_path: Path) -> None:
    import diffusers
    import transformers

    convert(Checkpoint.open(original), tmp_path / "out", "diffusers", shard_bytes=500_000)
    stored = tensors_below(tmp_path / "out")
    for name, cls in (
        ("transformer", diffusers.HunyuanVideoTransformer3DModel),
        ("vae", diffusers.AutoencoderKLHunyuanVideo),
        ("text_encoder", transformers.LlamaModel),
        ("text_encoder_2", transformers.CLIPTextModel),
    ):
        model = cls.from_pretrained(tmp_path / "out" / name, torch_dtype=torch.bfloat16)
        read = {
            f"{name}/{'text_model.' if name == 'text_encoder_2' else ''}{key.removeprefix('text_model.')}": v
            for key, v in model.state_dict().items()
        }
        assert_same_tensors(read, {key: v for key, v in stored.items() if key.startswith(f"{name}/")})
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler.from_pretrained(tmp_path / "out" / "scheduler")
    assert scheduler.config.shift == 7.0
    assert model.config.eos_token_id == PUBLISHED_HEADS.clip.eos_token_id


def test_progress_counts_every_byte(original: Path, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    convert(
        Checkpoint.open(original),
        tmp_path / "out",
        "diffusers",
        shard_bytes=300_000,
        progress=lambda *call: calls.append(call),
    )
    total = sum(tensor.nbytes for tensor in tensors_below(tmp_path / "out").values())
    assert calls == sorted(calls)
    assert calls[-1] == (total, total)


def test_existing_target_is_left_alone(original: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    convert(Checkpoint.open(original), tmp_path / "out", "original")  # empty: taken
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(OutputError, match="exists and is not an empty folder"):
        convert(Checkpoint.open(original), tmp_path / "out", "original")
    assert sorted(tmp_path.rglob("*")) == before


def test_incomplete_source_writes_nothing(original: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(original, tmp_path / "source"))
    path = source / "text_encoder" / "model.safetensors"
    llm = load_file(path)
    del llm["language_model.model.layers.3.mlp.up_proj.weight"]  # never used for a video, but part of a copy
    save_file(llm, path)
    with pytest.raises(WeightsError, match=r"1 missing: language_model\.model\.layers\.3\.mlp\.up_proj"):
        convert(Checkpoint.open(source), tmp_path / "out", "diffusers")
    assert [p.name for p in tmp_path.iterdir()] == ["source"]


def test_fp8_is_not_converted(original: Path, tmp_path: Path) -> None:
    dit = tmp_path / "x_fp8.pt"
    linear = "double_blocks.0.img_mod.linear"
    weight = STATES["dit"][f"{linear}.weight"].to(torch.float8_e4m3fn)
    torch.save({"module": STATES["dit"] | {f"{linear}.weight": weight}}, dit)
    torch.save({linear: torch.ones(1)}, tmp_path / "x_fp8_map.pt")
    with pytest.raises(WeightsError, match="got 8-bit weights, expected the full ones"):
        convert(Checkpoint.open(original, dit_weight=dit), tmp_path / "out", "diffusers")
    assert not (tmp_path / "out").exists()


CONVERT = """
import sys
from pathlib import Path
from hyvideo_rt.weights.checkpoint import Checkpoint
from hyvideo_rt.weights.convert import convert
from hyvideo_rt.errors import OutputError
def wait(done, total):
    print(done, flush=True)
    sys.stdin.readline()
try:
    convert(Checkpoint.open(sys.argv[1]), Path(sys.argv[2]), "diffusers", shard_bytes=200_000,
            progress=wait if sys.argv[3] == "wait" else None)
except OutputError as error:
    print("OutputError:", error)
"""


def start(
    source: Path, target: Path, mode: str, before: Callable[[], None] | None = None
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CONVERT, str(source), str(target), mode],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=before,
    )


def test_full_disk_leaves_nothing(original: Path, tmp_path: Path) -> None:
    def limit() -> None:  # a write beyond 100 kB of one file fails, as on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    process = start(original, tmp_path / "out", "run", limit)
    out, err = process.communicate(timeout=60)
    assert out.startswith(f"OutputError: {tmp_path / 'out'} could not be written: File too large"), out + err
    assert list(tmp_path.iterdir()) == []


def test_too_small_a_disk_is_noticed_first(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1_000_000))
    with pytest.raises(OutputError, match="it needs 6 MB and the disk has 1 MB free"):
        convert(Checkpoint.open(original), tmp_path / "out", "diffusers")
    assert list(tmp_path.iterdir()) == []


def test_interrupt_leaves_nothing(original: Path, tmp_path: Path) -> None:
    process = start(original, tmp_path / "out", "wait")
    assert process.stdout is not None
    assert int(process.stdout.readline()) > 0
    assert len(list(tmp_path.iterdir())) == 1, "files are being written beside the target"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert "KeyboardInterrupt" in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_unwritable_place(original: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="could not be written: Permission denied"):
        convert(Checkpoint.open(original), tmp_path / "out", "diffusers")


def test_parent_that_is_a_file(original: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="could not be written"):
        convert(Checkpoint.open(original), tmp_path / "file" / "out", "diffusers")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
