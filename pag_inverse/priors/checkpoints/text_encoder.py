"""Stable Diffusion's text encoder: the embeddings of the empty prompt and of others."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from operators.validation import short
from pag_inverse.priors.checkpoints.construction import (
    POSITIONS,
    build_network,
    check_depth,
    check_setting,
    read_weights,
)
from pag_inverse.priors.checkpoints.files import one_line
from pag_inverse.priors.networks import own_view
from pag_inverse.settings.files import TEXT_LIMIT, check_file, read_json

TRANSFORMERS = {"safetensors": "model", "bin": "pytorch_model"}
# What CLIP's text model is made of, with values of the kind that each has.
_CLIP: dict[str, Any] = {
    "vocab_size": 49408, "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
    "num_attention_heads": 12, "max_position_embeddings": 77, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5,
}  # fmt: skip
_START, _END, _LENGTH = 49406, 49407, 77  # CLIP's tokens, and how many of them a prompt has


class TextEncoder:
    """CLIP's text model with its tokenizer, each loaded when it is needed first.

    `encoder` and `tokenizer` return them; `where` names them in messages.
    """

    def __init__(self, encoder: Callable[[], Any], tokenizer: Callable[[], Any], where: str) -> None:
        self.encoder, self.tokenizer, self.where = encoder, tokenizer, where

    def __deepcopy__(self, memo: dict[int, Any]) -> TextEncoder:
        return self  # it never changes

    def held(self) -> TextEncoder:
        """The same with both in memory, for many prompts."""
        return TextEncoder(partial(_same, self.encoder()), partial(_same, self.tokenizer()), self.where)

    def empty(self) -> Tensor:
        """The embedding (1, 77, D) of the empty prompt, float32; its tokens are known without a tokenizer."""
        encoder = self.encoder()
        if encoder.config.vocab_size <= _END:  # not CLIP's vocabulary
            return self("")
        return embed(encoder, torch.tensor([empty_prompt_tokens(pad=_pad(encoder))]))

    def __call__(self, prompt: str) -> Tensor:
        """The embedding (1, 77, D) of a prompt, float32; ValueError where there is no tokenizer."""
        encoder, tokenizer = self.encoder(), self.tokenizer()
        if tokenizer is None:
            raise ValueError(f"{self.where} has no tokenizer, which a prompt needs")
        words, length = encoder.config.vocab_size, encoder.config.max_position_embeddings
        if len(tokenizer) != words:
            raise ValueError(f"{self.where}: its tokenizer has {len(tokenizer)} words, its text encoder {words}")
        found = tokenizer(prompt, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        return embed(encoder, found.input_ids)


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


def embed(encoder: Any, ids: Tensor) -> Tensor:
    """What the text encoder says of a prompt's tokens (1, L), float32; ValueError where it does not know them."""
    words, length = encoder.config.vocab_size, encoder.config.max_position_embeddings
    if ids.shape[1] > length or int(ids.min()) < 0 or int(ids.max()) >= words:
        raise ValueError(f"the tokens of a prompt do not fit the text encoder of {words} words, {length} tokens long")
    with torch.inference_mode(False), torch.no_grad():
        found: Tensor = encoder(ids.to(encoder.device)).last_hidden_state.float()
    return found


def _pad(encoder: Any) -> int:
    return 0 if encoder.config.hidden_size == 1024 else _END  # OpenCLIP ViT-H of 2.x


def build_text_encoder(config: Mapping[str, Any], state: Mapping[str, Tensor], where: str) -> Any:
    """CLIP's text model over float32 tensors; ValueError, which begins with `where`, where they do not fit together.

    Of the settings those in CLIP's table are used: the others are of training, or of outputs that are not.
    """
    from transformers import CLIPTextConfig, CLIPTextModel

    settings = {name: config[name] for name in _CLIP if name in config}
    for name, value in settings.items():
        check_setting(f"{where}: {name}", value, _CLIP[name], 64 if "layers" in name else 2**16)
    check_depth(settings, state, where)
    state = {key.removeprefix("text_model."): v for key, v in state.items() if not key.endswith(POSITIONS)}
    encoder = build_network(lambda: CLIPTextModel(CLIPTextConfig(**settings)), state, where)
    for module in encoder.modules():
        if POSITIONS in module._buffers:
            setattr(module, POSITIONS, torch.arange(encoder.config.max_position_embeddings)[None])
    return encoder


def _load_encoder(folder: Path) -> Any:
    inner = folder / "text_encoder"
    if not os.path.isdir(inner):
        raise ValueError(f"{folder} has no text_encoder, which its U-Net needs")
    config = read_json(inner / "config.json")
    kinds = config.get("architectures", ["CLIPTextModel"])
    if kinds != ["CLIPTextModel"]:
        raise ValueError(f"{inner} holds a {short(kinds)}; a CLIPTextModel belongs here")
    return build_text_encoder(config, read_weights(inner, TRANSFORMERS), str(inner))


def _load_tokenizer(folder: Path) -> Any:
    from transformers import CLIPTokenizer

    inner = folder / "tokenizer"
    try:
        for file in ("vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
            if os.path.lexists(inner / file):
                check_file(inner / file, TEXT_LIMIT)
        return CLIPTokenizer.from_pretrained(inner, local_files_only=True)
    except Exception as error:  # tokenizers raise anything on files that are not theirs
        raise ValueError(f"{inner} cannot be loaded; a prompt needs it: {one_line(error, 200)}") from error
