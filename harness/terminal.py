"""Where a command says things: results to standard output, complaints to standard error."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console


@dataclass(frozen=True, slots=True, kw_only=True)
class Terminal:
    """Two consoles."""

    out: Console
    errors: Console

    def say(self, text: str) -> None:
        """A line of output, broken by the terminal only, so that paths can be copied."""
        self.out.print(text, highlight=False, markup=False, soft_wrap=True)

    def complain(self, text: str) -> None:
        """A line or a few instead of a traceback."""
        self.errors.print(text, highlight=False, markup=False, soft_wrap=True)
