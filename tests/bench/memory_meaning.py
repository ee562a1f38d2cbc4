"""How many planted facts a search finds again, by agentk's own embedder and by a sentence model.

    python -m tests.bench.memory_meaning [--model FOLDER] [--others 400]

Each fact is asked for twice: once with words of its own, once in words of which it has none (but for "the" and the
like). Facts and questions were written down before either embedder had seen them. FOLDER has a sentence model as
`sentenceModel` of the daemon's configuration takes it; without it only agentk's own is measured.
"""

import argparse
import random
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

from agentk.memory import database, embedding, keeping, search, sentences, vectors

# A fact, a question that has words of it, and one that has none.
PLANTED = (
    (
        "The invoice of the plumber is due on Friday.",
        "when is the plumber's invoice due",
        "which bill must be paid this week",
    ),
    (
        "Anna is allergic to peanuts.",
        "what is Anna allergic to",
        "who has to avoid nuts because of her health",
    ),
    (
        "The backup server stands in the basement.",
        "where is the backup server",
        "location of the machine with our spare copies",
    ),
    (
        "Our flight to Lisbon leaves at six in the morning.",
        "when does the flight to Lisbon leave",
        "what time do we take off for Portugal",
    ),
    (
        "The new intern speaks Japanese fluently.",
        "what does the new intern speak",
        "somebody able to translate for Tokyo customers",
    ),
    (
        "The cellar door is opened with the small brass key.",
        "which key opens the cellar door",
        "how do I get into the basement",
    ),
    (
        "The database runs out of disk space every month.",
        "what runs out of disk space",
        "storage problem that keeps coming back",
    ),
    (
        "Lunch is served in the canteen until two.",
        "until when is lunch served",
        "where can employees eat at noon",
    ),
    ("The red car belongs to the landlord.", "whose is the red car", "vehicle of the owner of this house"),
    (
        "Deployments are forbidden on Fridays.",
        "are deployments forbidden on Fridays",
        "may we release software before the weekend",
    ),
    (
        "Martin broke his leg while skiing.",
        "what did Martin break while skiing",
        "winter sports accident of a colleague",
    ),
    (
        "The heating in room seven does not work.",
        "what does not work in room seven",
        "it is freezing in one of the offices",
    ),
    (
        "The contract with the supplier ends in December.",
        "when does the supplier's contract end",
        "vendor agreement expires at the close of the year",
    ),
    (
        "The choir rehearses every Tuesday evening.",
        "when does the choir rehearse",
        "singing practice schedule",
    ),
    (
        "The museum is closed for renovation.",
        "is the museum closed",
        "exhibition building undergoing construction work",
    ),
    (
        "Her daughter studies medicine in Vienna.",
        "what does her daughter study",
        "child becoming a doctor in Austria",
    ),
    ("The soup needs more salt.", "what does the soup need", "food tastes bland"),
    (
        "The password of the printer was changed yesterday.",
        "when was the printer's password changed",
        "credentials of an office device are different now",
    ),
    (
        "The old bridge was torn down last summer.",
        "what happened to the old bridge",
        "river crossing demolished",
    ),
    (
        "Customers complain that the app is slow.",
        "what do customers complain about",
        "users unhappy with performance",
    ),
    (
        "The gardener comes twice a month.",
        "how often does the gardener come",
        "person who trims our hedges and lawn",
    ),
    (
        "The baby sleeps through the night now.",
        "does the baby sleep through the night",
        "infant no longer wakes up its parents",
    ),
    (
        "Two hundred chairs were ordered for the conference.",
        "how many chairs were ordered",
        "seating bought for the big meeting",
    ),
    (
        "The library lends laptops to students.",
        "what does the library lend",
        "borrowing a notebook computer at university",
    ),
)
_WHO = (
    "The cook",
    "A neighbour",
    "The teacher",
    "Our lawyer",
    "The pilot",
    "A nurse",
    "The painter",
    "My uncle",
)
_DID = ("repairs", "sold", "found", "paints", "forgot", "collects", "describes", "lost")
_WHAT = (
    "an umbrella",
    "the violin",
    "old stamps",
    "a yellow boat",
    "the calendar",
    "a wooden horse",
    "some bread",
)
_LIMITS = keeping.Limits(10**6, 2**40, 10**6, 2**40)

Embed = Callable[[list[str]], list[bytes]]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="")
    parser.add_argument("--others", type=int, default=400)
    given = parser.parse_args()
    ways: dict[str, Embed] = {
        "agentk's own, lexical": lambda texts: [embedding.hashed(text) for text in texts]
    }
    if given.model:
        model = sentences.Model(Path(given.model))
        ways[Path(given.model).name] = lambda texts: [vectors.packed(one) for one in model.embed(texts)]
    print(f"{len(PLANTED)} facts among {given.others} others\n")
    print("| embedder | its own words @1 | @5 | other words @1 | @5 |\n|---|---|---|---|---|")
    for name, embed in ways.items():
        with tempfile.TemporaryDirectory(prefix="akb-") as folder:
            print(f"| {name} | {' | '.join(_shares(Path(folder), embed, given.others))} |")


def _shares(folder: Path, embed: Embed, others: int) -> list[str]:
    conn = database.open_file(folder).conn
    room = keeping.room(conn, "memory/bench", "a", "a")
    texts = [fact for fact, _, _ in PLANTED] + _others(others)
    random.Random(3).shuffle(texts)
    conn.execute("BEGIN")
    for text, vector in zip(texts, embed(texts), strict=True):
        page = keeping.fresh("note", text, 10)
        keeping.put(conn, room, page, _LIMITS, None, keeping.Vector("bench", vector))
    conn.execute("COMMIT")
    told = []
    for which in (1, 2):
        questions = [one[which] for one in PLANTED]
        places = [
            _place(search.search(conn, [room.id], search.Asked(question, 5, {"bench": vector})), one[0])
            for one, question, vector in zip(PLANTED, questions, embed(questions), strict=True)
        ]
        told += [f"{sum(place <= most for place in places) / len(places):.0%}" for most in (1, 5)]
    conn.close()
    return told


def _place(hits: list[search.Hit], fact: str) -> int:
    return next((at for at, hit in enumerate(hits, 1) if hit.page.text == fact), 1000)


def _others(many: int) -> list[str]:
    dice = random.Random(5)
    return [f"{dice.choice(_WHO)} {dice.choice(_DID)} {dice.choice(_WHAT)} ({n})." for n in range(many)]


def shared(fact: str, question: str) -> set[str]:
    """Words of more than three letters that both have."""
    words = [set(re.findall(r"\w{4,}", text.lower())) for text in (fact, question)]
    return words[0] & words[1]


if __name__ == "__main__":
    main()
