"""A sentence model in its process: a small one that is made here, read and run by the same code as a large one."""

import asyncio
import json
import struct
from array import array
from pathlib import Path
from typing import Any

import numpy
import pytest

from agentk.api import errors
from agentk.daemon import sentencing
from agentk.memory import sentences

SIZE, HEADS, LAYERS, WIDE = 16, 2, 2, 32
WORDS = ["[PAD]", "[UNK]", "cat", "dog", "invoice", "due", "is", "the", "when"]


def model(folder: Path, *, kind: str = "bert", without: str = "") -> Path:
    folder.mkdir(exist_ok=True)
    config = {"model_type": kind, "hidden_act": "gelu", "num_attention_heads": HEADS}
    config |= {"num_hidden_layers": LAYERS, "max_position_embeddings": 8, "layer_norm_eps": 1e-12}
    (folder / "config.json").write_text(json.dumps(config))
    vocab = {word: n for n, word in enumerate(WORDS)}
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
    }
    tokenizer |= {"pre_tokenizer": {"type": "Whitespace"}, "post_processor": None, "decoder": None}
    tokenizer["model"] = {"type": "WordLevel", "vocab": vocab, "unk_token": "[UNK]"}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (len(WORDS), SIZE),
        "embeddings.position_embeddings.weight": (8, SIZE),
        "embeddings.token_type_embeddings.weight": (2, SIZE),
        **norm("embeddings.LayerNorm"),
    }
    for n in range(LAYERS):
        layer = f"encoder.layer.{n}"
        for name in ("query", "key", "value"):
            shapes |= dense(f"{layer}.attention.self.{name}", SIZE, SIZE)
        shapes |= dense(f"{layer}.attention.output.dense", SIZE, SIZE) | norm(
            f"{layer}.attention.output.LayerNorm"
        )
        shapes |= dense(f"{layer}.intermediate.dense", WIDE, SIZE) | dense(
            f"{layer}.output.dense", SIZE, WIDE
        )
        shapes |= norm(f"{layer}.output.LayerNorm")
    random, header, data = numpy.random.default_rng(1), dict[str, Any](), b""
    for name, shape in shapes.items():
        if name == without:
            continue
        values = random.standard_normal(shape, dtype=numpy.float32).tobytes()
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + len(values)]}
        data += values
    told = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(told)) + told + data)
    return folder


def dense(name: str, out: int, into: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (out, into), f"{name}.bias": (out,)}


def norm(name: str) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (SIZE,), f"{name}.bias": (SIZE,)}


def test_a_text_has_the_same_vector_alone_and_beside_longer_ones(tmp_path: Path) -> None:
    made = sentences.Model(model(tmp_path))
    alone = made.embed(["the cat"])[0]
    beside = made.embed(["when is the invoice due", "the cat", "dog " * 1000])
    assert alone == pytest.approx(beside[1], abs=1e-5)
    assert all(numpy.linalg.norm(one) == pytest.approx(1, abs=1e-5) for one in beside)
    assert abs(float(numpy.dot(alone, beside[0]))) < 0.999


def test_gelu_is_what_it_is_to_seven_digits() -> None:
    from math import erf

    values = numpy.linspace(-6, 6, 200, dtype=numpy.float32)
    expected = [value * 0.5 * (1 + erf(value / 2**0.5)) for value in values.tolist()]
    assert sentences._gelu(values).tolist() == pytest.approx(expected, abs=2e-6)


def test_what_is_no_model_is_told_as_such(tmp_path: Path) -> None:
    with pytest.raises(sentences.Unfit, match="BERT"):
        sentences.Model(model(tmp_path / "a", kind="llama"))
    with pytest.raises(sentences.Unfit, match="query"):
        sentences.Model(model(tmp_path / "b", without="encoder.layer.1.attention.self.query.weight"))
    with pytest.raises(errors.Invalid, match="cannot be read"):
        sentencing.Sentences(str(tmp_path / "nothing"))


async def _through_a_death(folder: Path) -> tuple[list[float], list[float], str]:
    room = sentencing.Sentences(str(folder))
    try:
        first = (await room.embed(["the cat", "\ud800 \x00 odd"]))[0]
        assert room._process is not None
        room._process.kill()
        with pytest.raises(errors.Unavailable):
            await room.embed(["the cat"])
        again = (await room.embed(["the cat"]))[0]
        return array("f", first).tolist(), array("f", again).tolist(), room.name
    finally:
        await room.close()


def test_a_process_that_dies_is_told_of_and_started_again(tmp_path: Path) -> None:
    first, again, name = asyncio.run(_through_a_death(model(tmp_path / "tiny")))
    assert first == again == pytest.approx(sentences.Model(tmp_path / "tiny").embed(["the cat"])[0], abs=1e-6)
    assert name.startswith("tiny-")
