"""What people are told of windows: sizes that add up, pages drawn to scale, and why each is where it is."""

import re

from agentk.cli import memory_map
from agentk.memory import telling, window
from agentk.memory.contexts import Known
from tests.memory import talking
from tests.memory.talking import Talk


def spoken(turns: int = 60) -> tuple[Talk, Known]:
    talk = Talk("openai.chat", talking.settings(1_000))
    talk.say({"role": "user", "content": "Keep it short."}, {"role": "assistant", "content": "Yes."})
    talk.say(
        {"role": "user", "content": "My boat is called Halcyon."}, {"role": "assistant", "content": "Ah."}
    )
    for n in range(turns):
        talk.say({"role": "user", "content": f"Of {n}: {'abcdefghij'[n % 10] * 30}"})
        _, _, request = talk.send()
        talk.say({"role": "assistant", "content": f"So much for {n}."})
    talk.say({"role": "user", "content": "What was my boat called?"})
    _, _, request = talk.send()
    known = Known(1, talk.window, 1.0, talk.now, 1_000, request.fixed, read=900, cached=300)
    return talk, known


def test_tokens_add_up_and_every_page_is_told_of() -> None:
    talk, known = spoken()
    told = telling.whole(known)
    assert told["tokens"]["total"] == known.fixed + window.size(talk.window) <= 1_000
    assert (
        told["resident"] + told["swapped"]
        == len(told["pages"])
        == len(talk.window.slots) + len(talk.window.notes)
    )
    assert told["evictions"] > 50 and told["faults"] >= 2 and told["folds"] == len(talk.window.notes)
    assert 0 < told["prefix"] < 1


def test_a_map_has_a_block_of_each_page_and_letters_do_without_colours() -> None:
    _, known = spoken()
    told = telling.whole(known)
    lines = list(memory_map.drawn("a", told, 60, colour=False))
    plain = "\n".join(lines)
    bar, *rows = lines[1], *lines[4:-4]
    assert all(len(line) <= 68 for line in (bar, *rows)) and "\x1b" not in plain
    drawn = "".join(line[8:] for line in rows)
    assert len(re.findall("[A-Z]", drawn)) == told["resident"] and "+" in drawn and "." in drawn
    tokens = told["tokens"]
    for letter, part in zip("FNMR", ("fixed", "notes", "messages", "recalled"), strict=True):
        assert abs(bar.count(letter) - 59 * tokens[part] / told["budgetTokens"]) <= 1
        assert f"{letter} {part} {tokens[part]:,}" in lines[2]
    coloured = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(memory_map.drawn("a", told, 60, colour=True)))
    assert coloured.replace("█", "=").replace("▓", "+").replace("·", ".").splitlines()[4:] == lines[4:]
    assert f"{told['swapped']:,} swapped" in plain and f"{told['faults']:,} faults" in plain


def test_a_long_conversation_is_drawn_where_its_model_sees_it() -> None:
    _, known = spoken()
    told = telling.whole(known)
    told["pages"][1:1] = [page for page in told["pages"] if not page["resident"]] * 60
    lines = list(memory_map.drawn("a", told, 60, colour=False))
    assert any("more pages, all swapped" in line for line in lines) and len(lines) < 20
    assert len(re.findall("[A-Z]", "".join(line[8:] for line in lines[4:-4]))) == told["resident"]


def test_a_page_is_explained_by_the_parts_of_its_score() -> None:
    talk, known = spoken()
    texts = {slot.id: talk.items[place]["content"] for place, slot in enumerate(talk.window.slots)}
    boat = talk.window.slots[2]
    told = telling.explained(known, boat.id, texts, talk.settings, talk.now)
    assert told is not None and told["page"]["faults"] == 1
    assert told["score"]["similarity"]["points"] > 0.5 * talk.settings.weights.similarity
    total = sum(
        told["score"][name]["points"] for name in ("recency", "importance", "frequency", "similarity")
    )
    assert abs(total - told["score"]["total"]) < 0.001
    assert f"brought back before message {talk.window.slots[-1].seq}" in told["why"]
    first = telling.explained(known, telling.numbered(known, 1), texts, talk.settings, talk.now)
    assert first is not None and "pinned" in first["why"]
    gone = next(slot for slot in talk.window.slots if not slot.resident)
    left = telling.explained(known, gone.id, texts, talk.settings, talk.now)
    assert (
        left is not None
        and f"Note {gone.note} tells of it" in left["why"]
        and left["whenItLeft"] == gone.score
    )
    note = telling.explained(known, talk.window.notes[-1].id, texts, talk.settings, talk.now)
    assert note is not None and "score" not in note
    assert telling.explained(known, "p0", texts, talk.settings, talk.now) is None
    assert "others would leave before it" in "\n".join(memory_map.explained({**told, "text": "x"}))
