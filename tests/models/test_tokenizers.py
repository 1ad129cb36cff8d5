"""Both tokenizers: exact ids, and refusal of whatever would split prompts in another way."""

from pathlib import Path

import pytest
import transformers
from small_tokenizers import (
    llama3_split,
    train_clip_style,
    train_llama3_style,
    with_llama3_specials,
)
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel

from hyvideo_rt.errors import TokenizerMismatch, WeightsError
from hyvideo_rt.models.tokenizers import (
    IMAGE_TEMPLATE,
    VIDEO_TEMPLATE,
    ClipTokenizer,
    LlmTokenizer,
    PromptTemplate,
)

CAT = "A cat walks on the grass, realistic style."
CAT_IDS = [32, 8415, 23291, 389, 279, 16763, 11, 26569, 1742, 13, 128009]  # public Llama-3 vocabulary
VIDEO_IDS = """
    128000 128006 9125 128007 271 75885 279 2835 555 45293 279 2768 13878 25 220 16 13 578 1925 2262 323
    7057 315 279 2835 13 17 13 578 1933 11 6211 11 1404 11 10651 11 12472 11 1495 11 323 29079 12135 315
    279 6302 13 18 13 27820 11 4455 11 28198 37015 12135 11 7106 7351 4442 315 279 6302 13 19 13 4092
    4676 11 3177 11 1742 323 16975 13 20 13 6382 27030 11 19567 11 323 34692 1511 304 279 2835 25 128009
    128006 882 128007 271"""
IMAGE_IDS = """
    128000 128006 9125 128007 271 75885 279 2217 555 45293 279 1933 11 6211 11 1404 11 10651 11 12472 11
    1495 11 29079 12135 315 279 6302 323 4092 25 128009 128006 882 128007 271"""
PROMPTS = [
    "",
    CAT,
    "  A CAT\twalks   on\n\nthe grass  ",
    "It's 2024: they're 12,000 km away... isn't it?!",
    "一只猫在草地上行走，写实风格。",
    "a cat 🐈‍⬛ and a 👩‍🚀 in space 🚀🚀",
    "braces {} {0} {name} %s \\n",
    "naïve café — „Ünïcödé“",
    "cafe\u0301",  # not composed: e and a combining accent
    "a " * 200,
]
TEMPLATES = pytest.mark.parametrize("template", [VIDEO_TEMPLATE, IMAGE_TEMPLATE])


def saved(tokenizer: Tokenizer, folder: Path) -> Path:
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture
def llm(tmp_path: Path) -> LlmTokenizer:
    return LlmTokenizer(saved(train_llama3_style(PROMPTS), tmp_path))


@pytest.fixture
def clip_folder(tmp_path: Path) -> Path:
    train_clip_style(PROMPTS, tmp_path)
    return tmp_path


def llama3_excerpt() -> Tokenizer:
    """The few words of the templates and of CAT, under the ids that they have in Llama-3's vocabulary."""
    words = train_llama3_style([CAT])
    vocab: dict[str, int] = {}
    for text, ids in [
        (VIDEO_TEMPLATE.prefix, [int(i) for i in VIDEO_IDS.split()]),
        (IMAGE_TEMPLATE.prefix, [int(i) for i in IMAGE_IDS.split()]),
        (CAT + "<|eot_id|>", [128000, *CAT_IDS]),
    ]:
        for token, token_id in zip(words.encode(text).tokens, ids, strict=True):
            assert vocab.setdefault(token, token_id) == token_id
    assert len(set(vocab.values())) == len(vocab)
    return word_level(vocab)


def word_level(vocab: dict[str, int]) -> Tokenizer:
    tokenizer = Tokenizer(WordLevel(vocab, unk_token="<|eot_id|>"))
    tokenizer.pre_tokenizer = llama3_split()
    return with_llama3_specials(tokenizer)


@TEMPLATES
def test_the_prefix_is_cropped_exactly(llm: LlmTokenizer, template: PromptTemplate) -> None:
    """Whatever the prompt, the same `crop_start` ids come first, and end-of-turn comes last."""
    prefix = llm.encode("", template)[: template.crop_start]
    eot = llm.encode("", template)[-1]
    assert len(llm.encode("", template)) == template.crop_start + 1
    assert prefix[0] == llm.bos_id
    for prompt in PROMPTS[1:]:
        ids = llm.encode(prompt, template)
        assert ids[: template.crop_start] == prefix
        assert ids[-1] == eot
        assert eot not in ids[template.crop_start : -1]
        assert len(ids) > template.crop_start + 1


@TEMPLATES
@pytest.mark.parametrize("prompt", PROMPTS)
def test_llm_ids_equal_the_library(llm: LlmTokenizer, template: PromptTemplate, prompt: str) -> None:
    """BOS by the file's post-processor, and the prompt placed by `str.format`, as in the original."""
    expected = Tokenizer.from_file(str(llm.path)).encode(template.text.format(prompt.strip())).ids
    assert llm.encode(prompt, template) == expected


def test_llm_prompts_survive(llm: LlmTokenizer) -> None:
    """Decoding what follows the prefix gives the prompt back, braces, Chinese and emoji included."""
    decoder = Tokenizer.from_file(str(llm.path))
    for prompt in PROMPTS:
        ids = llm.encode(prompt, VIDEO_TEMPLATE)[VIDEO_TEMPLATE.crop_start :]
        tokens = [decoder.id_to_token(i) or "" for i in ids]
        assert bytes_of("".join(tokens[:-1])).decode() == prompt.strip()


def bytes_of(text: str) -> bytes:
    """Undo the byte-level alphabet: printable bytes stand for themselves, the others follow from U+0100."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    alphabet = {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}
    assert alphabet.keys() == set(pre_tokenizers.ByteLevel.alphabet())
    return bytes(alphabet[character] for character in text)


def test_outer_white_space_is_dropped(llm: LlmTokenizer) -> None:
    assert llm.encode(f" \n\t{CAT}\n ", VIDEO_TEMPLATE) == llm.encode(CAT, VIDEO_TEMPLATE)


def test_truncation_and_padding_in_the_file_are_ignored(tmp_path: Path) -> None:
    tokenizer = train_llama3_style(PROMPTS)
    tokenizer.enable_truncation(20)
    tokenizer.enable_padding(length=200)
    llm = LlmTokenizer(saved(tokenizer, tmp_path))
    assert len(llm.encode("", VIDEO_TEMPLATE)) == 96


def test_llama3_ids_are_accepted(tmp_path: Path) -> None:
    llm = LlmTokenizer(saved(llama3_excerpt(), tmp_path))
    assert llm.encode(CAT, VIDEO_TEMPLATE)[95:] == CAT_IDS
    assert llm.encode(CAT, IMAGE_TEMPLATE)[36:] == CAT_IDS
    assert llm.encode("", VIDEO_TEMPLATE)[95:] == [128009]


@pytest.mark.parametrize(("word", "position"), [("Describe", 5), ("Ġimage", 7), ("Ġrealistic", 8)])
def test_one_wrong_llama3_id_is_refused(tmp_path: Path, word: str, position: int) -> None:
    vocab = llama3_excerpt().get_vocab()
    assert word in vocab
    with pytest.raises(TokenizerMismatch, match=f"token {position} is 77, expected"):
        LlmTokenizer(saved(word_level(vocab | {word: 77}), tmp_path))


def test_llama3_specials_over_another_vocabulary_are_refused(tmp_path: Path) -> None:
    """The right lengths, the right special token, but nobody's ids."""
    tokenizer = train_llama3_style([CAT])
    vocab = tokenizer.get_vocab() | {"<|start_header_id|>": 128006}
    with pytest.raises(TokenizerMismatch, match="token 0 is 0, expected 128000"):
        LlmTokenizer(saved(word_level(vocab), tmp_path))


@pytest.mark.parametrize(
    "pre_tokenizer",
    [
        pre_tokenizers.Metaspace(),  # what transformers 5 puts there
        pre_tokenizers.Whitespace(),
    ],
)
def test_another_pre_tokenizer_is_refused(tmp_path: Path, pre_tokenizer: pre_tokenizers.PreTokenizer) -> None:
    tokenizer = train_llama3_style(PROMPTS)
    tokenizer.pre_tokenizer = pre_tokenizer
    with pytest.raises(TokenizerMismatch, match=r"tokens, expected 95\n  put the published files back"):
        LlmTokenizer(saved(tokenizer, tmp_path))


def test_llm_without_special_tokens_is_refused(tmp_path: Path) -> None:
    tokenizer = Tokenizer(WordLevel({"a": 0, "b": 1}, unk_token="b"))
    with pytest.raises(TokenizerMismatch, match=r"without <\|begin_of_text\|>"):
        LlmTokenizer(saved(tokenizer, tmp_path))


def test_missing_and_broken_llm_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no .*tokenizer\.json"):
        LlmTokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"model": ')
    with pytest.raises(WeightsError, match=r"cannot be read, .*tokenizer\.json"):
        LlmTokenizer(tmp_path)


@pytest.mark.parametrize("prompt", PROMPTS)
def test_clip_ids_equal_transformers(clip_folder: Path, prompt: str) -> None:
    reference = transformers.CLIPTokenizer.from_pretrained(clip_folder)
    expected = reference(prompt, max_length=77, truncation=True, padding="max_length").input_ids
    assert ClipTokenizer(clip_folder).encode(prompt) == expected


def test_clip_from_tokenizer_json_equals_clip_from_vocabulary(clip_folder: Path) -> None:
    from_vocab = ClipTokenizer(clip_folder)
    expected = [from_vocab.encode(prompt) for prompt in PROMPTS]
    reference = transformers.CLIPTokenizer.from_pretrained(clip_folder)
    reference(CAT, max_length=9, truncation=True, padding="max_length")  # is remembered in the file
    reference.save_pretrained(clip_folder)
    (clip_folder / "vocab.json").unlink()
    from_json = ClipTokenizer(clip_folder)
    assert [from_json.encode(prompt) for prompt in PROMPTS] == expected


def test_clip_pads_and_cuts_to_77(clip_folder: Path) -> None:
    clip = ClipTokenizer(clip_folder)
    empty, short, long = clip.encode(""), clip.encode("cat"), clip.encode("cat " * 10_000)
    assert empty == [clip.bos_id] + [clip.eos_id] * 76
    cat = short[1]
    assert cat not in (clip.bos_id, clip.eos_id)
    assert short == [clip.bos_id, cat] + [clip.eos_id] * 75
    assert long == [clip.bos_id] + [cat] * 75 + [clip.eos_id]


def test_missing_and_broken_clip_files_are_named(clip_folder: Path) -> None:
    (clip_folder / "merges.txt").write_text("#version: 0.2\nno-such token\n")
    with pytest.raises(WeightsError, match="cannot be read"):
        ClipTokenizer(clip_folder)
    (clip_folder / "merges.txt").unlink()
    with pytest.raises(WeightsError, match=r"no tokenizer\.json and no merges\.txt"):
        ClipTokenizer(clip_folder)


def test_clip_without_special_tokens_is_refused(tmp_path: Path) -> None:
    saved(Tokenizer(WordLevel({"a": 0, "<|endoftext|>": 1}, unk_token="a")), tmp_path)
    with pytest.raises(TokenizerMismatch, match=r"without <\|startoftext\|>"):
        ClipTokenizer(tmp_path)
