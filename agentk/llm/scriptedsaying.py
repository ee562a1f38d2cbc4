"""One scripted answer before it takes the shape of a dialect, and how it is cut into the pieces of a stream."""

import re
from dataclasses import dataclass

# A fixed moment for `created`: an answer is the same every time it is asked for.
CREATED = 1_700_000_000
_WORD = re.compile(r"\s*\S+\s*")
_WORDS_A_PIECE = 4
_ARGUMENTS_A_PIECE = 24


@dataclass(frozen=True)
class Saying:
    id: str
    model: str
    text: str
    tool_calls: tuple[tuple[str, str], ...]  # name, arguments as JSON
    cut: bool  # the bound on the answer was reached
    input_tokens: int
    output_tokens: int

    def call_id(self, n: int, prefix: str) -> str:
        return f"{prefix}{self.id[:20]}{n:02d}"

    def text_pieces(self) -> list[str]:
        """A few words each; joined they are the text."""
        words = _WORD.findall(self.text)
        if not words:
            return [self.text] if self.text else []
        step = _WORDS_A_PIECE
        return ["".join(words[n : n + step]) for n in range(0, len(words), step)]

    @staticmethod
    def argument_pieces(arguments: str) -> list[str]:
        step = _ARGUMENTS_A_PIECE
        return [arguments[n : n + step] for n in range(0, len(arguments), step)]
