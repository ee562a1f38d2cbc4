"""A sentence model read from a folder and run by numpy: BERT encoders as sentence-transformers keeps them.

Only in a process of its own (`sentence_main`): it is the one file here that imports numpy, and what it reads is what
agents wrote. The folder has model.safetensors, config.json and tokenizer.json; nothing in it is code.
"""

import json
import math
import struct
from pathlib import Path
from typing import Any

import numpy
from tokenizers import Tokenizer

TOKENS = 256  # of a text that are read, where the model says nothing
_BATCH = 8
_HEADER_BYTES = 16 * 1024 * 1024
_TYPES = {"F32": numpy.float32, "F16": numpy.float16}


class Unfit(Exception):
    """The folder has no model that can be run here, and why."""


class Model:
    def __init__(self, folder: Path) -> None:
        """Raises Unfit, or OSError."""
        try:
            config = json.loads((folder / "config.json").read_text())
        except ValueError as error:
            raise Unfit(f"config.json: {error}") from None
        if config.get("model_type") != "bert" or config.get("hidden_act") != "gelu":
            raise Unfit("config.json: only BERT encoders with gelu can be run here")
        self._heads, self._layers = int(config["num_attention_heads"]), int(config["num_hidden_layers"])
        self._epsilon = float(config.get("layer_norm_eps", 1e-12))
        self._weights = _weights(folder / "model.safetensors")
        self._tokenizer: Any = Tokenizer.from_file(str(folder / "tokenizer.json"))
        longest = min(_longest(folder), int(config["max_position_embeddings"]))
        self._tokenizer.enable_truncation(longest)
        self._tokenizer.enable_padding()
        self.embed(["a trial, so that what is missing is told now"])

    def embed(self, texts: list[str]) -> list[list[float]]:
        """A vector of length one for each text."""
        made: list[list[float]] = []
        for at in range(0, len(texts), _BATCH):
            made += self._pass(texts[at : at + _BATCH]).tolist()
        return made

    def _pass(self, texts: list[str]) -> Any:
        read = self._tokenizer.encode_batch(texts)
        ids = numpy.array([one.ids for one in read])
        mask = numpy.array([one.attention_mask for one in read], dtype=numpy.float32)
        try:
            hidden = self._encoded(ids, mask)
        except KeyError as error:
            raise Unfit(f"model.safetensors has no {error}") from None
        mean = (hidden * mask[:, :, None]).sum(1) / numpy.maximum(mask.sum(1, keepdims=True), 1)
        return mean / numpy.maximum(numpy.linalg.norm(mean, axis=1, keepdims=True), 1e-12)

    def _encoded(self, ids: Any, mask: Any) -> Any:
        weights = self._weights
        hidden = weights["embeddings.word_embeddings.weight"][ids]
        hidden = hidden + weights["embeddings.position_embeddings.weight"][: ids.shape[1]]
        hidden = hidden + weights["embeddings.token_type_embeddings.weight"][0]
        hidden = self._normal(hidden, "embeddings.LayerNorm")
        unseen = (1 - mask)[:, None, None, :] * numpy.float32(-1e9)
        for number in range(self._layers):
            layer = f"encoder.layer.{number}"
            seen = self._dense(self._attention(hidden, unseen, layer), f"{layer}.attention.output.dense")
            hidden = self._normal(hidden + seen, f"{layer}.attention.output.LayerNorm")
            wide = _gelu(self._dense(hidden, f"{layer}.intermediate.dense"))
            hidden = self._normal(
                hidden + self._dense(wide, f"{layer}.output.dense"), f"{layer}.output.LayerNorm"
            )
        return hidden

    def _attention(self, hidden: Any, unseen: Any, layer: str) -> Any:
        many, long, size = hidden.shape
        each = size // self._heads

        def heads(name: str) -> Any:
            made = self._dense(hidden, f"{layer}.attention.self.{name}")
            return made.reshape(many, long, self._heads, each).transpose(0, 2, 1, 3)

        scores = heads("query") @ heads("key").transpose(0, 1, 3, 2) / math.sqrt(each) + unseen
        scores = numpy.exp(scores - scores.max(-1, keepdims=True))
        scores /= scores.sum(-1, keepdims=True)
        return (scores @ heads("value")).transpose(0, 2, 1, 3).reshape(many, long, size)

    def _dense(self, hidden: Any, name: str) -> Any:
        return hidden @ self._weights[f"{name}.weight"].T + self._weights[f"{name}.bias"]

    def _normal(self, hidden: Any, name: str) -> Any:
        centred = hidden - hidden.mean(-1, keepdims=True)
        spread = numpy.sqrt((centred * centred).mean(-1, keepdims=True) + self._epsilon)
        return centred / spread * self._weights[f"{name}.weight"] + self._weights[f"{name}.bias"]


def _weights(path: Path) -> dict[str, Any]:
    """Tensors by name, mapped from the file."""
    with path.open("rb") as file:
        size = struct.unpack("<Q", file.read(8))[0]
        if size > _HEADER_BYTES:
            raise Unfit("model.safetensors: its header is too long")
        try:
            header = json.loads(file.read(size))
        except ValueError as error:
            raise Unfit(f"model.safetensors: {error}") from None
    data = numpy.memmap(path, mode="r", offset=8 + size)
    made = {}
    for name, told in header.items():
        kind = _TYPES.get(told.get("dtype")) if name != "__metadata__" else None
        if kind is None:
            continue  # numbers of positions, and the like
        first, last = told["data_offsets"]
        values = data[first:last].view(kind).reshape(told["shape"])
        made[name.removeprefix("bert.")] = values.astype(numpy.float32)
    return made


def _longest(folder: Path) -> int:
    try:
        return int(json.loads((folder / "sentence_bert_config.json").read_text())["max_seq_length"])
    except (OSError, ValueError, KeyError, TypeError):
        return TOKENS


def _gelu(values: Any) -> Any:
    """x times the normal distribution's share below x; its erf by a polynomial, right to seven digits."""
    scaled = numpy.abs(values) * numpy.float32(1 / math.sqrt(2))
    step = 1 / (1 + numpy.float32(0.3275911) * scaled)
    series = numpy.zeros_like(step)
    for factor in (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592):
        series = (series + numpy.float32(factor)) * step
    erf = numpy.sign(values) * (1 - series * numpy.exp(-scaled * scaled))
    return values * (1 + erf) * numpy.float32(0.5)
