"""From a prompt to token ids: the LLM's tokenizer with its prompt templates, and CLIP's.

Both run on the `tokenizers` library alone and read the published files directly. Newer transformers versions
rebuild the LLM's tokenizer with another pre-tokenizer, without a word. So what is loaded here must reproduce
the token counts (for the real vocabulary the ids) that the model was trained with.
"""

from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import BPE

from hyvideo_rt.errors import TokenizerMismatch, WeightsError


@dataclass(frozen=True)
class PromptTemplate:
    """Instructions around the prompt; the states of the first `crop_start` tokens never reach the DiT."""

    text: str  # with one {} where the prompt goes
    crop_start: int  # tokens before the prompt, BOS included

    @property
    def prefix(self) -> str:
        return self.text.partition("{}")[0]

    def format(self, prompt: str) -> str:
        """Braces in the prompt are ordinary characters."""
        return self.text.replace("{}", prompt)


VIDEO_TEMPLATE = PromptTemplate(
    "<|start_header_id|>system<|end_header_id|>\n\n"
    "Describe the video by detailing the following aspects: "
    "1. The main content and theme of the video."
    "2. The color, shape, size, texture, quantity, text, and spatial relationships of the objects."
    "3. Actions, events, behaviors temporal relationships, physical movement changes of the objects."
    "4. background environment, light, style and atmosphere."
    "5. camera angles, movements, and transitions used in the video:<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\n{}<|eot_id|>",
    crop_start=95,
)
IMAGE_TEMPLATE = PromptTemplate(
    "<|start_header_id|>system<|end_header_id|>\n\n"
    "Describe the image by detailing the color, shape, size, texture, quantity, text, "
    "spatial relationships of the objects and background:<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\n{}<|eot_id|>",
    crop_start=36,
)


class LlmTokenizer:
    """Llama-3 style: `folder` holds a tokenizer.json with header, end-of-turn and begin-of-text tokens.

    Raises WeightsError for a missing or broken file, TokenizerMismatch for one that splits text otherwise.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "tokenizer.json"
        if not self.path.is_file():
            raise WeightsError(
                f"got no {self.path}; expected the LLM's tokenizer there\n"
                f"  copy tokenizer.json from the published text encoder into {folder}"
            )
        self._tokenizer = _read_json(self.path)
        self.bos_id = _special_id(self._tokenizer, "<|begin_of_text|>", self.path)
        self._check()

    @property
    def vocab_size(self) -> int:
        return self._tokenizer.get_vocab_size(with_added_tokens=True)

    def encode(self, prompt: str, template: PromptTemplate) -> list[int]:
        """BOS, then the template around the prompt without its outer white space: not cut, not padded."""
        return self._ids(template.format(prompt.strip()))

    def _ids(self, text: str) -> list[int]:
        return [self.bos_id, *self._tokenizer.encode(text, add_special_tokens=False).ids]

    def _check(self) -> None:
        for template in (VIDEO_TEMPLATE, IMAGE_TEMPLATE):
            self._check_length(template)
        # Any other vocabulary, such as the tiny model's, has ids of its own.
        if self._tokenizer.token_to_id("<|start_header_id|>") == _LLAMA3_START_HEADER:
            for text, ids in _LLAMA3_IDS.items():
                self._check_ids(text, ids)

    def _check_length(self, template: PromptTemplate) -> None:
        if (got := len(self._ids(template.prefix))) != template.crop_start:
            raise TokenizerMismatch(
                f"{self.path} splits the template {template.prefix!r} into {got} tokens, "
                f"expected {template.crop_start}\n{_REMEDY}"
            )

    def _check_ids(self, text: str, expected: list[int]) -> None:
        for i, (got, want) in enumerate(zip_longest(self._ids(text), expected)):
            if got != want:
                raise TokenizerMismatch(
                    f"{self.path} has Llama-3's special tokens but not its vocabulary: in {text!r}, "
                    f"token {i} is {got}, expected {want}\n{_REMEDY}"
                )


class ClipTokenizer:
    """CLIP: `folder` holds a tokenizer.json, or vocab.json and merges.txt.

    Raises WeightsError for missing or broken files, TokenizerMismatch for one without CLIP's special tokens.
    """

    def __init__(self, folder: Path, max_length: int = 77) -> None:
        self.max_length = max_length
        path = folder / "tokenizer.json"
        self._tokenizer = _read_json(path) if path.is_file() else _read_clip_vocab(folder)
        self.bos_id = _special_id(self._tokenizer, "<|startoftext|>", folder)
        self.eos_id = _special_id(self._tokenizer, "<|endoftext|>", folder)

    @property
    def vocab_size(self) -> int:
        return self._tokenizer.get_vocab_size(with_added_tokens=True)

    def encode(self, prompt: str) -> list[int]:
        """BOS, the prompt, EOS, padding with EOS: always `max_length` ids; a long prompt loses its tail."""
        ids = self._tokenizer.encode(prompt.strip(), add_special_tokens=False).ids[: self.max_length - 2]
        return [self.bos_id, *ids] + [self.eos_id] * (self.max_length - 1 - len(ids))


def _read_json(path: Path) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library has no narrower class
        raise _broken(path, error) from error
    tokenizer.no_padding()  # a file remembers how its tokenizer was last used
    tokenizer.no_truncation()
    return tokenizer


def _read_clip_vocab(folder: Path) -> Tokenizer:
    vocab, merges = folder / "vocab.json", folder / "merges.txt"
    missing = [path.name for path in (vocab, merges) if not path.is_file()]
    if missing:
        raise WeightsError(
            f"got no tokenizer.json and no {' or '.join(missing)} in {folder}; expected CLIP's tokenizer\n"
            f"  copy tokenizer.json, or vocab.json and merges.txt, from the published CLIP-L into {folder}"
        )
    try:
        model = BPE.from_file(
            str(vocab), str(merges), unk_token="<|endoftext|>", end_of_word_suffix="</w>", fuse_unk=False
        )
    except Exception as error:  # the library has no narrower class
        raise _broken(vocab, error) from error
    return _clip_tokenizer(model)


def _clip_tokenizer(model: BPE) -> Tokenizer:
    """CLIP's way to words: NFC, single spaces, lower case; letters, single digits and the rest apart."""
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    words = Regex(
        r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(words, behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.add_special_tokens(
        [AddedToken(token, normalized=False) for token in ("<|startoftext|>", "<|endoftext|>")]
    )
    return tokenizer


def _special_id(tokenizer: Tokenizer, token: str, where: Path) -> int:
    token_id = tokenizer.token_to_id(token)
    if token_id is None:
        raise TokenizerMismatch(
            f"got a tokenizer without {token}, which the model expects: {where}\n{_REMEDY}"
        )
    return int(token_id)


def _broken(path: Path, error: Exception) -> WeightsError:
    return WeightsError(f"got a tokenizer file that cannot be read, {path}: {error}\n{_REMEDY}")


_REMEDY = "  put the published files back, byte for byte: a copy saved again by another program may differ"
_LLAMA3_START_HEADER = 128006
_LLAMA3_IDS = {  # the public Llama-3 vocabulary, BOS in front
    text: [int(token_id) for token_id in ids.split()]
    for text, ids in {
        VIDEO_TEMPLATE.prefix: """
            128000 128006 9125 128007 271 75885 279 2835 555 45293 279 2768 13878 25 220 16 13 578 1925
            2262 323 7057 315 279 2835 13 17 13 578 1933 11 6211 11 1404 11 10651 11 12472 11 1495 11 323
            29079 12135 315 279 6302 13 18 13 27820 11 4455 11 28198 37015 12135 11 7106 7351 4442 315
            279 6302 13 19 13 4092 4676 11 3177 11 1742 323 16975 13 20 13 6382 27030 11 19567 11 323
            34692 1511 304 279 2835 25 128009 128006 882 128007 271""",
        IMAGE_TEMPLATE.prefix: """
            128000 128006 9125 128007 271 75885 279 2217 555 45293 279 1933 11 6211 11 1404 11 10651 11
            12472 11 1495 11 29079 12135 315 279 6302 323 4092 25 128009 128006 882 128007 271""",
        "A cat walks on the grass, realistic style.<|eot_id|>": """
            128000 32 8415 23291 389 279 16763 11 26569 1742 13 128009""",
    }.items()
}
