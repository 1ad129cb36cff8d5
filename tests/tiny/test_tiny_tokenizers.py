import json
import re
from pathlib import Path
from random import Random

import pytest
import transformers
from diffusers import HunyuanVideoPipeline
from tokenizers import Tokenizer

from hyvideo_rt.config import MODELS
from hyvideo_rt.models.tokenizers import IMAGE_TEMPLATE, VIDEO_TEMPLATE, ClipTokenizer, LlmTokenizer
from tiny.captions import caption, words
from tiny.tokenizers import VOCAB_SIZE, write
from tiny.world import sample_scene

OTHER_TEXTS = [
    "",
    "A red circle moves right on a white background.",
    "  two   spaces\tand\na line ",
    "Don't stop: 12345 cats!?",
    "一只猫在草地上行走",
    "🎈👩‍🚀 é e\u0301 ﬁ İstanbul",
    "\x00\x7f\u200b",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    write(path)
    return path


@pytest.fixture(scope="module")
def texts() -> list[str]:
    rng = Random(11)
    captions = [caption(sample_scene(rng, "heldout" if i % 2 else "train"), rng) for i in range(2000)]
    return OTHER_TEXTS + captions


def test_the_files_are_the_same_each_time(folder: Path, tmp_path: Path) -> None:
    write(tmp_path)
    written = sorted(path.relative_to(folder) for path in folder.rglob("*.*"))
    assert len(written) == 8
    for path in written:
        assert (tmp_path / path).read_bytes() == (folder / path).read_bytes(), path


def test_the_runtime_takes_both_and_the_ids_fit_the_tiny_config(folder: Path) -> None:
    llm, clip, config = (
        LlmTokenizer(folder / "tokenizer"),
        ClipTokenizer(folder / "tokenizer_2"),
        MODELS["tiny"],
    )
    assert llm.vocab_size == clip.vocab_size == VOCAB_SIZE
    assert (config.llm.vocab_size, config.clip.vocab_size) == (VOCAB_SIZE, VOCAB_SIZE)
    assert (clip.bos_id, clip.eos_id) == (config.clip.bos_token_id, config.clip.eos_token_id)
    assert clip.max_length == config.clip.max_positions
    assert len(llm.encode("", VIDEO_TEMPLATE)) == 96  # the end of the turn comes after the prefix
    assert len(llm.encode("", IMAGE_TEMPLATE)) == 37


def test_every_id_has_one_token(folder: Path) -> None:
    for name in ("tokenizer", "tokenizer_2"):
        vocab = Tokenizer.from_file(str(folder / name / "tokenizer.json")).get_vocab(with_added_tokens=True)
        assert sorted(vocab.values()) == list(range(VOCAB_SIZE))


def test_every_caption_word_is_one_token(folder: Path, texts: list[str]) -> None:
    llm, clip = LlmTokenizer(folder / "tokenizer"), ClipTokenizer(folder / "tokenizer_2")
    for text in texts[len(OTHER_TEXTS) :]:
        pieces = re.findall(r"[A-Za-z]+|[^A-Za-z\s]", text)
        assert len(llm.encode(text, VIDEO_TEMPLATE)) == 95 + len(pieces) + 1, text
        ids = clip.encode(text)
        assert ids.index(clip.eos_id) == 1 + len(pieces), text


def test_captions_use_no_word_that_is_not_listed(texts: list[str]) -> None:
    used = {word for text in texts[len(OTHER_TEXTS) :] for word in re.findall(r"[a-z]+", text.lower())}
    assert used <= set(words())
    assert len(used) > 0.8 * len(words())


def test_any_text_comes_back(folder: Path) -> None:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer" / "tokenizer.json"))
    for text in OTHER_TEXTS:
        assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_clip_ignores_case_and_knows_every_byte(folder: Path) -> None:
    clip = ClipTokenizer(folder / "tokenizer_2")
    assert clip.encode("A RED Circle") == clip.encode("a red circle") != clip.encode("a red star")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer_2" / "tokenizer.json"))
    for text in OTHER_TEXTS:
        assert clip.eos_id not in tokenizer.encode(text, add_special_tokens=False).ids  # the unknown token
        assert tokenizer.encode(text).ids == [
            clip.bos_id,
            *tokenizer.encode(text, add_special_tokens=False).ids,
            clip.eos_id,
        ]


@pytest.mark.parametrize("loader", ["AutoTokenizer", "PreTrainedTokenizerFast"])
def test_transformers_gives_the_same_llm_ids(folder: Path, texts: list[str], loader: str) -> None:
    theirs = getattr(transformers, loader).from_pretrained(folder / "tokenizer")
    ours = LlmTokenizer(folder / "tokenizer")
    for text in texts[:300]:
        for template in (VIDEO_TEMPLATE, IMAGE_TEMPLATE):
            assert theirs(template.format(text.strip()))["input_ids"] == ours.encode(text, template)


@pytest.mark.parametrize("loader", ["AutoTokenizer", "CLIPTokenizer"])
@pytest.mark.parametrize("with_json", [True, False])
def test_transformers_gives_the_same_clip_ids(
    folder: Path, texts: list[str], loader: str, with_json: bool, tmp_path: Path
) -> None:
    write(tmp_path)
    if not with_json:
        (tmp_path / "tokenizer_2" / "tokenizer.json").unlink()
    theirs = getattr(transformers, loader).from_pretrained(tmp_path / "tokenizer_2")
    ours, bare = ClipTokenizer(folder / "tokenizer_2"), ClipTokenizer(tmp_path / "tokenizer_2")
    assert theirs.model_max_length == 77
    for text in texts[:300]:
        ids = theirs(text.strip(), padding="max_length", truncation=True)["input_ids"]
        assert ids == ours.encode(text) == bare.encode(text)


def test_diffusers_loads_them_by_the_classes_that_model_index_names(folder: Path, tmp_path: Path) -> None:
    write(tmp_path)
    index: dict[str, object] = {
        "_class_name": "HunyuanVideoPipeline",
        "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
        "tokenizer_2": ["transformers", "CLIPTokenizer"],
    }
    networks = ("text_encoder", "text_encoder_2", "transformer", "vae", "scheduler")
    index |= {name: [None, None] for name in networks}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    pipeline = HunyuanVideoPipeline.from_pretrained(tmp_path, **dict.fromkeys(networks))
    text = VIDEO_TEMPLATE.format("a red circle moves right")
    padded = pipeline.tokenizer(text, max_length=351, padding="max_length", truncation=True)
    ours = LlmTokenizer(folder / "tokenizer").encode("a red circle moves right", VIDEO_TEMPLATE)
    assert padded["input_ids"][: len(ours)] == ours
    assert padded["attention_mask"] == [1] * len(ours) + [0] * (351 - len(ours))
