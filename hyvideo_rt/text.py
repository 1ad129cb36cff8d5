"""What the DiT is told: a prompt through the LLM and CLIP, as hidden states of its valid tokens only.

Padded text can reach neither the picture nor a valid token, so none is computed or carried: a short prompt
costs about a third of the 351 tokens that the original always runs.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from hyvideo_rt.errors import InvalidRequest, TokenizerMismatch
from hyvideo_rt.models.clip import ClipTextEncoder
from hyvideo_rt.models.llama import LlamaEncoder
from hyvideo_rt.models.tokenizers import IMAGE_TEMPLATE, VIDEO_TEMPLATE, ClipTokenizer, LlmTokenizer


@dataclass(frozen=True)
class TextStates:
    """One prompt, encoded.

    states [1, n, text_dim] of the n tokens kept, pooled [1, pooled_dim]; each in its encoder's dtype.
    `num_llm_tokens` counts the whole prompt and its end-of-turn token: more than n iff `truncated`.
    """

    states: Tensor
    pooled: Tensor
    num_llm_tokens: int
    truncated: bool


class TextEncoder:
    """Both text encoders with their tokenizers. Device and dtype are those of the modules.

    `text_len` is how many tokens of a prompt, end-of-turn included, reach the DiT. `apply_final_norm` norms
    the LLM's states; a model that skips no layers always does.
    """

    def __init__(
        self,
        llm: LlamaEncoder,
        llm_tokenizer: LlmTokenizer,
        clip: ClipTextEncoder,
        clip_tokenizer: ClipTokenizer,
        text_len: int = 256,
        apply_final_norm: bool = False,
    ) -> None:
        if text_len < 1:
            raise InvalidRequest(
                f"got a text length of {text_len} tokens, expected 1 or more\n  the default is 256"
            )
        _check_vocab("LLM", llm_tokenizer.vocab_size, llm.config.vocab_size)
        _check_vocab("CLIP", clip_tokenizer.vocab_size, clip.config.vocab_size)
        if clip_tokenizer.eos_id != clip.config.eos_token_id:
            raise TokenizerMismatch(
                f"CLIP's tokenizer ends a text with id {clip_tokenizer.eos_id}, "
                f"expected {clip.config.eos_token_id} as in the model's config\n"
                "  use the tokenizer and the config of the same model"
            )
        self.llm, self.llm_tokenizer = llm, llm_tokenizer
        self.clip, self.clip_tokenizer = clip, clip_tokenizer
        self.apply_final_norm = apply_final_norm or llm.skip_layers == 0
        # The original derives this from the video template alone: for one image 315 tokens fit, not 256.
        self.max_length = text_len + VIDEO_TEMPLATE.crop_start

    @torch.no_grad()
    def encode(self, prompt: str, *, image: bool = False) -> TextStates:
        """A prompt that is too long loses its tail and the end-of-turn token, as in the original.

        `image` selects the template for a single frame.
        """
        template = IMAGE_TEMPLATE if image else VIDEO_TEMPLATE
        _check_encodable(prompt)
        ids = self.llm_tokenizer.encode(prompt, template)
        states: Tensor = self.llm(_batch(ids[: self.max_length], self.llm.embed_tokens.weight.device))
        if self.apply_final_norm:
            states = self.llm.norm(states)
        return TextStates(
            states=states[:, template.crop_start :],
            pooled=self._pooled(prompt),
            num_llm_tokens=len(ids) - template.crop_start,
            truncated=len(ids) > self.max_length,
        )

    def _pooled(self, prompt: str) -> Tensor:
        device = self.clip.text_model.final_layer_norm.weight.device
        pooled: Tensor = self.clip(_batch(self.clip_tokenizer.encode(prompt), device))
        return pooled


def _batch(ids: list[int], device: torch.device) -> Tensor:
    return torch.tensor([ids], dtype=torch.int64, device=device)


def _check_vocab(name: str, tokenizer_size: int, model_size: int) -> None:
    if tokenizer_size > model_size:
        raise TokenizerMismatch(
            f"the {name}'s tokenizer has {tokenizer_size} tokens, expected at most the model's {model_size}\n"
            "  use the tokenizer and the weights of the same model"
        )


def _check_encodable(prompt: str) -> None:
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(
            f"got a prompt with half a character at position {error.start}, expected valid Unicode\n"
            "  send the prompt as UTF-8"
        ) from error
