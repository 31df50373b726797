"""Stable Diffusion's text encoder: the embeddings of the empty prompt and of others."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from pag_inverse.priors.checkpoints.files import one_line
from pag_inverse.priors.networks import own_view

_START, _END, _LENGTH = 49406, 49407, 77  # CLIP's tokens, and how many of them a prompt has


class TextEncoder:
    """CLIP's text model with its tokenizer, each loaded when it is needed first.

    `encoder` and `tokenizer` return them; `where` names them in messages.
    """

    def __init__(self, encoder: Callable[[], Any], tokenizer: Callable[[], Any], where: str) -> None:
        self.encoder, self.tokenizer, self.where = encoder, tokenizer, where

    def __deepcopy__(self, memo: dict[int, Any]) -> TextEncoder:
        return self  # it never changes

    def empty(self) -> Tensor:
        """The embedding (1, 77, D) of the empty prompt, float32; its tokens are known without a tokenizer."""
        encoder = self.encoder()
        if encoder.config.vocab_size <= _END:  # not CLIP's vocabulary
            return self("")
        return _embed(encoder, torch.tensor([empty_prompt_tokens(pad=_pad(encoder))]))

    def __call__(self, prompt: str) -> Tensor:
        """The embedding (1, 77, D) of a prompt, float32; ValueError where there is no tokenizer."""
        encoder, tokenizer = self.encoder(), self.tokenizer()
        if tokenizer is None:
            raise ValueError(f"{self.where} has no tokenizer, which a prompt needs")
        length = encoder.config.max_position_embeddings
        found = tokenizer(prompt, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        return _embed(encoder, found.input_ids)


def empty_prompt_tokens(pad: int) -> list[int]:
    """The 77 tokens of the empty prompt: Stable Diffusion 1.x pads with 49407, 2.x with 0."""
    return [_START, _END, *[pad] * (_LENGTH - 2)]


def folder_text_encoder(folder: Path) -> TextEncoder:
    """The text encoder and tokenizer in a diffusers folder, read anew each time, so that no memory holds them."""
    return TextEncoder(partial(_load_encoder, folder), partial(_load_tokenizer, folder), str(folder))


def held_text_encoder(encoder: Any, tokenizer: Any, where: str) -> TextEncoder:
    """A text encoder at hand, through a view of it, with its tokenizer or None."""
    return TextEncoder(partial(_same, own_view(encoder)), partial(_same, tokenizer), where)


def _same(value: Any) -> Any:
    return value


def _embed(encoder: Any, ids: Tensor) -> Tensor:
    with torch.inference_mode(False), torch.no_grad():
        found: Tensor = encoder(ids.to(encoder.device)).last_hidden_state.float()
    return found


def _pad(encoder: Any) -> int:
    return 0 if encoder.config.hidden_size == 1024 else _END  # OpenCLIP ViT-H of 2.x


def _load_encoder(folder: Path) -> Any:
    from transformers import CLIPTextModel

    try:
        return CLIPTextModel.from_pretrained(folder / "text_encoder", local_files_only=True).eval()
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"{folder / 'text_encoder'} cannot be loaded: {one_line(error, 200)}") from error


def _load_tokenizer(folder: Path) -> Any:
    from transformers import CLIPTokenizer

    try:
        return CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{folder / 'tokenizer'} cannot be loaded; a prompt needs it") from error
