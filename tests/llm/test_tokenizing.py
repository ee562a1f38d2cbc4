"""Tokens as models count them: by a process that has shipped files and nothing else."""

import asyncio
import hashlib
import importlib.util
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import tiktoken.load
from tiktoken import Encoding
from tiktoken_ext import openai_public

from agentk.llm.tokenizing import Tokenizers

TEXTS = [
    "",
    "hello world",
    "Guten Tag, größter 🦊!",
    "数据库里有三张表",
    '{"a": [1, 2.5]}\n\t',
    "<|endoftext|> x",
]


@asynccontextmanager
async def counting() -> AsyncIterator[Tokenizers]:
    made = Tokenizers()
    try:
        yield made
    finally:
        await made.close()


def run(story: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(story())  # type: ignore[arg-type]


@pytest.fixture
def shipped(monkeypatch: pytest.MonkeyPatch) -> Encoding:
    """The same tokenizer in this process, from the file that LiteLLM has."""
    found = importlib.util.find_spec("litellm")
    assert found and found.origin
    folder = Path(found.origin).parent / "litellm_core_utils" / "tokenizers"
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", "")
    monkeypatch.setattr(
        tiktoken.load,
        "read_file",
        lambda blobpath: (folder / hashlib.sha1(blobpath.encode()).hexdigest()).read_bytes(),
    )
    return Encoding(**openai_public.o200k_base())


def test_texts_are_counted_as_the_models_own_tokenizer_does(shipped: Encoding) -> None:
    async def story() -> None:
        async with counting() as made:
            assert await made.count(["openai/gpt-4o"], TEXTS)
            known = [made.known("o200k_base", text) for text in TEXTS]
            assert known == [len(shipped.encode_ordinary(text)) for text in TEXTS]

    run(story)


def test_models_without_a_shipped_tokenizer_have_none_and_nothing_is_fetched() -> None:
    async def story() -> None:
        async with counting() as made:
            assert await made.name(["anthropic/claude-sonnet-4"]) == "" == await made.name(["openai/llama-3"])
            assert made._kept is None, "nothing is started to be told so"
            assert await made.name(["azure/gpt-4.1-mini"]) == "o200k_base"
            assert await made.name(["gpt-4", "gpt-4o"]) == "cl100k_base and o200k_base"
            assert await made.name(["gpt-4o", "claude-3"]) == ""
            # Its file is an address, which is not asked for.
            assert await made.name(["davinci"]) == ""
            assert await made.count(["davinci"], ["x"]) is False

    run(story)


def test_what_a_tokenizer_breaks_on_is_counted_all_the_same() -> None:
    async def story() -> None:
        async with counting() as made:
            texts = [" " * 300_000, "\n" * 300_000, "\ud83d", "^" * 100_000]
            assert await made.count(["gpt-4o"], texts)
            assert all(0 < (made.known("o200k_base", text) or 0) <= len(text) * 3 for text in texts)

    run(story)


def test_a_counter_that_dies_is_told_of_and_replaced() -> None:
    async def story() -> None:
        async with counting() as made:
            assert await made.count(["gpt-4o"], ["one"])
            assert made._kept and made._kept.now
            os.kill(made._kept.now.pid, signal.SIGKILL)
            await made._kept._child.told()  # type: ignore[union-attr]
            assert await made.count(["gpt-4o"], ["two"])
            assert made.known("o200k_base", "two") == 1
            await made.close()
            assert await made.count(["gpt-4o"], ["three"]), "begun again, as after a rest"

    run(story)
