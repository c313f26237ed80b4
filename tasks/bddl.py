"""Reads what the project needs from a BDDL file: the instruction, the goal and the objects.

BDDL is a Lisp-like language; a file is one nested list. Everything is lower-cased on reading, as
LIBERO's own parser does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

Expression = str | list["Expression"]
Predicate = tuple[str, ...]


class BddlError(ValueError):
    """A BDDL file does not have the expected form."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A parsed BDDL file."""

    name: str
    """LIBERO's environment class in lower case, such as `libero_tabletop_manipulation`."""
    instruction: str
    goal: tuple[Predicate, ...]
    """The conjunction of predicates, such as `("on", "akita_black_bowl_1", "plate_1")`."""
    initial: tuple[Predicate, ...]
    objects: dict[str, str]
    """Movable object → category."""
    fixtures: dict[str, str]
    """Fixture → category."""


def tokenize(text: str) -> Expression:
    """The nested list of a BDDL text, `;` comments removed.

    Raises:
        BddlError: the parentheses do not match.
    """
    tokens = re.findall(r"[()]|[^\s()]+", re.sub(r";.*$", "", text, flags=re.MULTILINE).lower())
    stack: list[list[Expression]] = [[]]
    for token in tokens:
        if token == "(":
            stack.append([])
        elif token == ")":
            if len(stack) < 2:
                raise BddlError("a closing parenthesis without an opening one")
            done = stack.pop()
            stack[-1].append(done)
        else:
            stack[-1].append(token)
    if len(stack) != 1 or len(stack[0]) != 1:
        raise BddlError(f"expected one balanced expression, got {len(stack[0])} with {len(stack) - 1} left open")
    return stack[0][0]


def _typed_names(words: list[Expression]) -> dict[str, str]:
    """`a b - kind c - other` → {a: kind, b: kind, c: other}."""
    names: dict[str, str] = {}
    pending: list[str] = []
    remaining = iter(str(word) for word in words)
    for word in remaining:
        if word == "-":
            kind = next(remaining)
            names.update(dict.fromkeys(pending, kind))
            pending = []
        else:
            pending.append(word)
    return names


def _predicate(expression: Expression) -> Predicate:
    return tuple(str(word) for word in expression)


def _conjunction(expression: Expression) -> tuple[Predicate, ...]:
    assert isinstance(expression, list)
    if expression and expression[0] == "and":
        return tuple(_predicate(part) for part in expression[1:])
    return (_predicate(expression),)


def read_problem(file: Path) -> Problem:
    """Parse one BDDL file.

    Raises:
        BddlError: the file is no BDDL problem; the message names it.
        FileNotFoundError: it does not exist.
    """
    return parse_problem(file.read_text(), str(file))


def parse_problem(text: str, where: str) -> Problem:
    """Parse a BDDL text.

    Args:
        where: what the text is from, for messages.

    Raises:
        BddlError: it is no BDDL problem.
    """
    try:
        expression = tokenize(text)
        if not isinstance(expression, list) or expression[0] != "define":
            raise BddlError("expected `(define …)`")
        sections = {str(part[0]): part[1:] for part in expression[1:] if isinstance(part, list) and part}
        return Problem(
            name=str(sections["problem"][-1]),
            instruction=" ".join(str(word) for word in sections[":language"]),
            goal=_conjunction(sections[":goal"][0]),
            initial=tuple(_predicate(part) for part in sections[":init"]),
            objects=_typed_names(sections[":objects"]),
            fixtures=_typed_names(sections[":fixtures"]),
        )
    except (BddlError, KeyError, IndexError, StopIteration) as error:
        raise BddlError(f"{where}: not a LIBERO BDDL problem: {error}") from error
