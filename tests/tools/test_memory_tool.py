"""The shipped memory: its bounds, what it is searched for with, and that what is forgotten is gone from its file."""

import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from agentk.data import files


@pytest.fixture
def memory(tmp_path: Path) -> Any:
    """The module of the manifest, with its file in a directory of this test's own."""
    tool = yaml.safe_load((files.folder("manifests") / "51-tool-memory.yaml").read_text())
    made = types.ModuleType("memory")
    exec(tool["spec"]["python"]["source"]["inline"]["files"]["memory.py"], made.__dict__)
    made.FILE = str(tmp_path / "memory.db")  # type: ignore[attr-defined]
    return made


@pytest.mark.parametrize(
    "query",
    [
        "lamp",
        "LAMPS oil",
        '"lamp',
        "lamp*",
        "NEAR(lamp, 2)",
        "text:lamp",
        "^lamp",
        "{text name}: lamp",
        "lamp AND",
        "NOT lamp",
        "lamp' OR 1=1 --",
        "lamp\0",
        "läMp",
        "lamp " * 10_000,
        "\ud800 lamp",
    ],
)
def test_words_are_words_whatever_stands_between_them(memory: Any, query: str) -> None:
    memory.remember("Ada's lamp burns whale oil.", "ada", ["light"])
    assert [one["name"] for one in memory.search(query)] == ["ada"]


@pytest.mark.parametrize("query", ["", "\0", '"*^(){}:-'])
def test_without_a_word_nothing_is_searched(memory: Any, query: str) -> None:
    with pytest.raises(ValueError, match="no word"):
        memory.search(query)


def test_the_best_comes_first_and_lists_are_cut(memory: Any) -> None:
    memory.remember("A ship and a lamp, " + "far out at sea, " * 100, "ship")
    memory.remember("A lamp is a lamp.", "lamp")
    found = memory.search("lamp", most=10**9)
    assert [one["name"] for one in found] == ["lamp", "ship"] and len(found[1]["text"]) < 700
    assert len(memory.recall("ship")["text"]) > 1600
    assert [one["name"] for one in memory.listed(most=-1)] == ["lamp"]


def test_there_is_an_end_to_what_is_kept(memory: Any) -> None:
    memory.PAGES, memory.ALL_BYTES = 3, 100
    names = [memory.remember(text)["name"] for text in ("a", "b", "c", "b")]
    assert names == ["note-1", "note-2", "note-3", "note-2"], "the same text is kept once"
    for text, name in (("d", ""), ("x" * 99, "note-1")):
        with pytest.raises(ValueError, match="forget some"):
            memory.remember(text, name)
    assert memory.recall("note-1")["text"] == "a", "what could not be replaced is still there"
    memory.forget("note-3")
    assert memory.remember("d")["name"] not in names, "no name is used again"
    for wrong in ({"name": "n" * 101}, {"name": "two\nlines"}, {"tags": ["t"] * 11}, {"tags": [""]}):
        with pytest.raises(ValueError, match="at most"):
            memory.remember("e", **wrong)


def test_a_file_that_is_full_says_so_and_keeps_what_it_had(memory: Any) -> None:
    memory.remember("first", "first")
    memory.FILE_PAGES = 40
    with pytest.raises(OSError, match="nothing was changed"):
        for number in range(1000):
            memory.remember(f"{number} " + "some words of it " * 500)
    assert memory.recall("first")["text"] == "first"
    for number in range(2, 5):
        memory.forget(f"note-{number}")
    memory.remember("there is room again")


def test_what_is_forgotten_is_not_in_the_file(memory: Any) -> None:
    memory.remember("the password is xylophone", "secret", ["zanzibar"])
    memory.remember("harmless", "other")
    assert b"xylophone" in Path(memory.FILE).read_bytes()
    memory.forget("secret")
    held = Path(memory.FILE).read_bytes()
    assert not [word for word in (b"xylophone", b"zanzibar", b"xylophon", b"secret") if word in held]
    assert [path.name for path in Path(memory.FILE).parent.iterdir()] == ["memory.db"]


def test_many_at_once_lose_nothing(memory: Any) -> None:
    with ThreadPoolExecutor(8) as pool:
        names = [one["name"] for one in pool.map(lambda n: memory.remember(f"fact {n}"), range(40))]
    assert len(set(names)) == 40 == len(memory.listed())
