"""What is told about labels: the first messages in full and how many more there are, as one mistake
may be in every shape of a file."""

from __future__ import annotations

from collections.abc import Iterable

MAX_TOLD = 50
MAX_NAME = 120
"""Characters of a picture's name that messages show: the last ones, where ids and endings are."""


class Messages(list[str]):
    """Messages of one line each, of which only the first `MAX_TOLD` are kept."""

    def __init__(self, messages: Iterable[str] = ()) -> None:
        super().__init__()
        self.left = 0
        """How many came when there were enough."""
        self.extend(messages)

    @property
    def total(self) -> int:
        """How many there were."""
        return len(self) + self.left

    def append(self, message: str) -> None:
        """One more. A line break in a name from outside must not begin a line that looks like
        another message of ours."""
        if len(self) < MAX_TOLD:
            super().append(one_line(message))
        else:
            self.left += 1

    def extend(self, messages: Iterable[str]) -> None:
        for message in messages:
            self.append(message)

    def take(self, others: Messages, beginning: str = "") -> None:
        """Those of others, each with this beginning."""
        self.extend(beginning + message for message in others)
        self.left += others.left

    def lines(self) -> list[str]:
        """Those that were kept and, if there are more, a last line that says how many."""
        return [*self, f"and {self.left:,} more"] if self.left else list(self)


def one_line(text: str) -> str:
    r"""The text with its line breaks shown as `\n`. Other control characters are shown by
    `hdgan.core.printable` where the text is printed."""
    return text.replace("\n", "\\n")


def shown_name(picture: str) -> str:
    """The name or address of a picture, which a file may give any length, for a message."""
    return one_line(picture[-MAX_NAME:])
