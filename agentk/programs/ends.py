"""How a program ends before it has an answer."""

from __future__ import annotations


class Ended(Exception):
    """`reason`: one word that the call exit knows, or "" for an error like any other."""

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason
