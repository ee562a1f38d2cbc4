"""A long conversation with planted facts, in three ways of fitting it into a budget: what is kept, sent, and answered.

    python -m tests.bench.context [--tokens 4000] [--turns 500] [--model gpt-4o] [--embed MODEL_FOLDER]

`managed` is agentk's; `FIFO` keeps the system text and the newest messages that fit; `summarise everything` folds all
but the newest quarter into one summary of a tenth of the budget whenever it is full, line by line: without a model, as
agentk's own notes are made. All three count with the tokenizer of `--model`. Recall: of the planted facts, how many are
in what the model is sent when it is asked about them, by a question that shares words with the fact, or by a paraphrase
that shares none, and how many of those were in the prompt before already, since the fact was asked for shortly before.
Facts and questions (`context_facts.json`) were written down before the first run and never changed after it. `--embed`
names the folder of a sentence model: likeness by meaning is then its, and else only words are compared.
"""

import argparse
import functools
import json
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from agentk.llm import tokenizing_main
from agentk.memory import folding, layout, messages, tokens, turning
from agentk.memory.messages import Request
from agentk.memory.turning import Settings
from agentk.memory.window import Bounds, Window

Embed = Callable[[Sequence[str]], list[list[float]]]
Parts = list[tuple[bytes, int]]
_PRESSED = 4  # as the gate does it
FACTS = Path(__file__).with_name("context_facts.json")


class Managed:
    name = "managed"

    def __init__(self, budget: int, embed: Embed | None, counter: tokens.Counter) -> None:
        self._counter = counter
        self.settings, self.window, self.notes = Settings(Bounds(budget)), Window(), dict[str, str]()
        self._embed, self._vectors, self._ids, self._now = embed, dict[str, list[float]](), 0, 0.0
        self.seconds: list[float] = []

    def send(self, request: Request) -> tuple[str, Parts]:
        self._now += 30.0
        begun = time.perf_counter()
        fresh = len(request.said) - len(self.window.slots)
        grown = turning.grown(self.window, request.said, self.settings.bounds, self._now, self._id)
        near = self._near(grown, request, fresh)
        turn = turning.turned(grown, request, fresh, self.settings, self._now, near)
        after = turn.window
        episode = folding.due(after, turning.texts(after, request)) if turn.left else None
        if episode:
            note = self._id()
            self.notes[note] = folding.extract(episode, self.settings.bounds.note)
            after = turning.noted(
                after, episode, self.notes[note], self.settings, request.fixed, self._now, note, self._counter
            )
        for _ in range(_PRESSED):
            prompt = layout.arranged(after, request, self.notes, self._counter)
            if prompt.tokens <= self.settings.bounds.tokens:
                break
            after, _left = turning.pressed(after, request, self.settings, self._now, prompt.tokens)
        self.window = layout.remembered(after, prompt)
        self.seconds.append(time.perf_counter() - begun)
        return json.dumps(prompt.items, ensure_ascii=False), list(prompt.parts)

    def _near(self, grown: Window, request: Request, fresh: int) -> Mapping[str, float]:
        if self._embed is None:
            return {}
        new = list(zip(grown.slots, request.said, strict=True))[len(grown.slots) - fresh :]
        made = self._embed([said.text for _, said in new])
        self._vectors |= {slot.id: vector for (slot, _), vector in zip(new, made, strict=True)}
        asked = self._vectors[grown.slots[-1].id]
        return {
            slot.id: sum(a * b for a, b in zip(asked, self._vectors[slot.id], strict=True))
            for slot in grown.slots[:-1]
            if not slot.resident
        }

    def _id(self) -> str:
        self._ids += 1
        return f"p{self._ids:016x}"


class Fifo:
    name = "FIFO"

    def __init__(self, budget: int, embed: Embed | None, counter: tokens.Counter) -> None:
        self._budget = budget

    def send(self, request: Request) -> tuple[str, Parts]:
        left, kept = self._budget - request.fixed, 0
        for said in reversed(request.said):
            left -= said.tokens
            if left < 0:
                break
            kept += 1
        shown = request.said[len(request.said) - kept :]
        parts = [(request.fixed_digest, request.fixed), *((said.digest, said.tokens) for said in shown)]
        return json.dumps([said.item for said in shown], ensure_ascii=False), parts


class Summary:
    """One summary of all that is gone, written anew from the one before and what goes now."""

    name = "summarise everything"

    def __init__(self, budget: int, embed: Embed | None, counter: tokens.Counter) -> None:
        self._counter = counter
        self._budget, self._from, self._text = budget, 0, ""

    def send(self, request: Request) -> tuple[str, Parts]:
        shown = request.said[self._from :]
        if self._size(request, shown) > self._budget:
            room, keep = self._budget // 4, 0
            for said in reversed(shown):
                room -= said.tokens
                if room < 0:
                    break
                keep += 1
            gone = shown[: len(shown) - max(1, keep)]
            self._from += len(gone)
            lines = [self._text, *(f"- {said.kind}: {said.text}" for said in gone)]
            whole = "\n".join(line[:80] for line in "\n".join(lines).splitlines() if line)
            most = self._budget // 10 * tokens.BYTES_A_TOKEN
            self._text = whole.encode()[-most:].decode(errors="ignore")
            shown = request.said[self._from :]
        recap = messages.spoken(self._text)
        parts: Parts = [(request.fixed_digest, request.fixed)]
        parts += (
            [(messages.digest(self._text.encode()), messages.weight(recap, self._counter))]
            if self._text
            else []
        )
        parts += [(said.digest, said.tokens) for said in shown]
        return json.dumps([recap, *(said.item for said in shown)], ensure_ascii=False), parts

    def _size(self, request: Request, shown: Sequence[messages.Said]) -> int:
        recap = messages.weight(messages.spoken(self._text), self._counter) if self._text else 0
        return request.fixed + recap + sum(said.tokens for said in shown)


def tokenizer(model: str) -> tokens.Counter:
    """The model's own, from the files that agentk counts with."""
    tokenizing_main.fetch_nothing(tokenizing_main.folder())
    name = tokenizing_main.tokenizer_of(model)

    @functools.cache
    def count(text: bytes) -> int:
        return tokenizing_main.count(name, text.decode())

    return tokens.Counter(f"tokenizer {name}", count, "words")


def run(
    make: Callable[[int, Embed | None, tokens.Counter], Any],
    budget: int,
    turns: int,
    embed: Embed | None,
    counter: tokens.Counter,
) -> dict[str, Any]:
    facts = json.loads(FACTS.read_text(encoding="utf-8"))
    way, die = make(budget, embed, counter), random.Random(20261121)
    planted, probes = _plan(facts, turns, die)
    talk: list[Any] = [{"role": "system", "content": facts["system"]}]
    last: Parts = []
    prefix = sent = 0
    full: list[float] = []
    found: dict[str, list[tuple[bool, bool]]] = {"words": [], "paraphrase": []}
    before = ""
    for turn in range(turns):
        text, probe = facts["fillers"][turn % len(facts["fillers"])].format(n=turn), None
        if turn in planted:
            text = planted[turn]["fact"]
        elif turn in probes:
            probe = probes[turn]
            text = probe[1]
        talk.append({"role": "user", "content": text})
        request = messages.read("openai.chat", {"messages": talk})
        assert request is not None
        request = messages.weighed(request, len(request.said), counter)
        shown, parts = way.send(request)
        size = sum(part for _, part in parts)
        assert size <= budget, f"{way.name}: {size} of {budget}"
        prefix, sent = prefix + layout.common(last, parts), sent + size
        last = parts
        if request.fixed + sum(said.tokens for said in request.said) > budget:
            full.append(size / budget)
        if probe:
            found[probe[0]].append((probe[2] in shown, probe[2] in before))
        before = shown
        talk.append({"role": "assistant", "content": facts["answers"][turn % len(facts["answers"])]})
    return {"way": way, "prefix": prefix / sent, "full": statistics.mean(full), "found": found}


def _plan(
    facts: Any, turns: int, die: random.Random
) -> tuple[dict[int, Any], dict[int, tuple[str, str, str]]]:
    """Facts in the first half; each is asked for twice in the second, far from where it was said."""
    several = facts["facts"]
    planted = dict(zip(sorted(die.sample(range(1, turns // 2), len(several))), several, strict=True))
    asked = [(kind, one[kind], one["answer"]) for one in several for kind in ("words", "paraphrase")]
    die.shuffle(asked)
    places = sorted(die.sample(range(turns // 2 + 1, turns), len(asked)))
    return planted, dict(zip(places, asked, strict=True))


def embedder(folder: str) -> Embed:
    """As agentk runs it (`sentenceModel` of the daemon's configuration)."""
    # Only here: numpy is of agentk[sentences].
    from agentk.memory import sentences

    model = sentences.Model(Path(folder))
    return lambda texts: model.embed(list(texts))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tokens", type=int, default=4_000)
    parser.add_argument("--turns", type=int, default=500)
    parser.add_argument("--model", default="gpt-4o")
    parser.add_argument("--embed", default="")
    given = parser.parse_args()
    print(
        "| way | context used | prefix of the last prompt | recall by words | by paraphrase | a turn, median |"
    )
    print("|---|---|---|---|---|---|")
    ways: list[tuple[Any, Embed | None]] = [(Fifo, None), (Summary, None), (Managed, None)]
    if given.embed:
        ways.append((Managed, embedder(given.embed)))
    counter = tokenizer(given.model)
    for make, embed in ways:
        told = run(make, given.tokens, given.turns, embed, counter)
        name = told["way"].name + (", with a sentence model" if embed else "")
        rates = [
            f"{sum(hit for hit, _ in hits)} of {len(hits)} ({sum(hit and was for hit, was in hits)} still there)"
            for hits in told["found"].values()
        ]
        seconds = getattr(told["way"], "seconds", [])
        speed = f"{statistics.median(seconds) * 1000:.1f} ms" if seconds else "-"
        print(
            f"| {name} | {told['full']:.0%} | {told['prefix']:.0%} | {rates[0]} | {rates[1]} | {speed} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
