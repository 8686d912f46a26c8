"""A small part of CEL, enough for the rules of a schema: paths, has, comparison, logic, lists.

A rule that uses more is not looked at; `unsupported` says which those are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

Names = dict[str, Any]
Run = Callable[[Names], Any]

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<number>\d+(?:\.\d+)?)
      | (?P<text>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")
      | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
      | (?P<sign>&&|\|\||==|!=|<=|>=|[-+!<>().,?:\[\]])
    )""",
    re.VERBOSE,
)


class NotSupported(Exception):
    """The rule uses what is not read here."""


class Unanswerable(Exception):
    """The rule cannot be evaluated, so it fails. The message is CEL's."""


@dataclass(frozen=True)
class NotWhole:
    """A whole number that came as one with a point, which CEL takes for another type."""

    number: float


def about_change(rule: str) -> bool:
    """Whether the rule is about the old state, too."""
    return re.search(r"\boldSelf\b", rule) is not None


def holds(rule: str, value: Any, old: Any) -> bool:
    """Whether the rule is met. One about `oldSelf` is, where there is no old state.

    Raises `Unanswerable`.
    """
    try:
        run = _compiled(rule)
    except NotSupported:
        return True
    if old is None and about_change(rule):
        return True
    return run({"self": value, "oldSelf": old}) is True


def unsupported(rules: list[str]) -> list[str]:
    """Those of the rules that are not looked at."""
    found = []
    for rule in rules:
        try:
            _compiled(rule)
        except NotSupported:
            found.append(rule)
    return found


@cache
def _compiled(rule: str) -> Run:
    parser = _Parser(_tokens(rule))
    run = parser.choice()
    if parser.at < len(parser.tokens):
        raise NotSupported(rule)
    return run


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str


def _tokens(rule: str) -> list[_Token]:
    tokens = []
    at = 0
    rule = rule.rstrip()
    while at < len(rule):
        found = _TOKEN.match(rule, at)
        if found is None:
            raise NotSupported(rule)
        assert found.lastgroup is not None
        tokens.append(_Token(found.lastgroup, found.group(found.lastgroup)))
        at = found.end()
    return tokens


class _Parser:
    """Recursive descent: each method reads one level of precedence."""

    def __init__(self, tokens: list[_Token]) -> None:
        self.tokens = tokens
        self.at = 0
        self._variables = ["self", "oldSelf"]

    def _next(self) -> str:
        return self.tokens[self.at].text if self.at < len(self.tokens) else ""

    def _take(self, text: str) -> bool:
        if self._next() == text and self.tokens[self.at].kind in ("sign", "name"):
            self.at += 1
            return True
        return False

    def _need(self, text: str) -> None:
        if not self._take(text):
            raise NotSupported(text)

    def choice(self) -> Run:
        test = self._either()
        if not self._take("?"):
            return test
        yes = self.choice()
        self._need(":")
        no = self.choice()
        return lambda names: yes(names) if test(names) else no(names)

    def _either(self) -> Run:
        parts = [self._both()]
        while self._take("||"):
            parts.append(self._both())
        return parts[0] if len(parts) == 1 else _any(parts)

    def _both(self) -> Run:
        parts = [self._comparison()]
        while self._take("&&"):
            parts.append(self._comparison())
        return parts[0] if len(parts) == 1 else _all(parts)

    def _comparison(self) -> Run:
        left = self._not()
        for sign, compare in _COMPARE.items():
            if self._take(sign):
                right = self._not()
                return _compared(left, right, compare)
        return left

    def _not(self) -> Run:
        if self._take("!"):
            inner = self._not()
            return lambda names: not inner(names)
        return self._path()

    def _path(self) -> Run:
        run = self._atom()
        while self._take("."):
            name = self._name()
            run = self._method(run, name) if self._take("(") else _member(run, name)
        if self._next() == "[":
            raise NotSupported("[")
        return run

    def _method(self, run: Run, name: str) -> Run:
        if name == "size":
            self._need(")")
            return lambda names: len(run(names))
        if name in _MACROS:
            return self._macro(run, name)
        method = _METHODS.get(name)
        if method is None:
            raise NotSupported(name)
        argument = self.choice()
        self._need(")")
        return _compared(run, argument, method)

    def _macro(self, run: Run, name: str) -> Run:
        """`list.all(one, test)` and the like."""
        variable = self._name()
        self._need(",")
        self._variables.append(variable)
        test = self.choice()
        self._variables.pop()
        self._need(")")
        macro = _MACROS[name]
        return lambda names: macro(run(names), lambda one: test({**names, variable: one}))

    def _name(self) -> str:
        if self.at >= len(self.tokens) or self.tokens[self.at].kind != "name":
            raise NotSupported(self._next())
        self.at += 1
        return self.tokens[self.at - 1].text

    def _atom(self) -> Run:
        if self._take("("):
            run = self.choice()
            self._need(")")
            return run
        if self._take("["):
            return self._listed()
        if self.at >= len(self.tokens):
            raise NotSupported("the end")
        token = self.tokens[self.at]
        self.at += 1
        if token.kind == "number":
            number = float(token.text) if "." in token.text else int(token.text)
            return lambda names: number
        if token.kind == "text":
            text = token.text[1:-1]
            if "\\" in text:
                raise NotSupported(text)
            return lambda names: text
        if token.text in ("has", "size"):
            return self._call(token.text)
        if token.text in self._variables:
            return lambda names: names[token.text]
        if token.text not in _WORDS:
            raise NotSupported(token.text)
        word = _WORDS[token.text]
        return lambda names: word

    def _call(self, name: str) -> Run:
        self._need("(")
        inner = self._path()
        self._need(")")
        if name == "size":
            return lambda names: len(inner(names))

        def has(names: Names) -> bool:
            # A null that is allowed counts as absent here.
            try:
                return inner(names) is not None
            except Unanswerable:
                return False

        return has

    def _listed(self) -> Run:
        items: list[Run] = []
        while not self._take("]"):
            items.append(self.choice())
            if not self._take(",") and self._next() != "]":
                raise NotSupported(self._next())
        return lambda names: [item(names) for item in items]


def _any(parts: list[Run]) -> Run:
    return lambda names: _decided(parts, lambda part: part(names), by=True)


def _all(parts: list[Run]) -> Run:
    return lambda names: _decided(parts, lambda part: part(names), by=False)


def _decided(many: Iterable[Any], test: Callable[[Any], Any], *, by: bool) -> bool:
    """`by` if it is the answer of one test, also where others have none; else the opposite."""
    unanswered: Unanswerable | None = None
    for one in many:
        try:
            if bool(test(one)) is by:
                return by
        except Unanswerable as error:
            unanswered = unanswered or error
    if unanswered is not None:
        raise unanswered
    return not by


def _member(run: Run, name: str) -> Run:
    def member(names: Names) -> Any:
        here = run(names)
        if not isinstance(here, dict) or name not in here:
            raise Unanswerable(f"no such key: {name}")
        if isinstance(here[name], NotWhole):
            raise Unanswerable("invalid data, expected int, got float64")
        return here[name]

    return member


def _compared(left: Run, right: Run, compare: Callable[[Any, Any], bool]) -> Run:
    return lambda names: compare(left(names), right(names))


def _equal(one: Any, other: Any) -> bool:
    """Two values with the same null somewhere in them differ."""
    return bool(one == other) and (one is None or not _has_null(one))


def _has_null(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_has_null(one) for one in value.values())
    if isinstance(value, list):
        return any(_has_null(one) for one in value)
    return value is None


_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "==": _equal,
    "!=": lambda a, b: not _equal(a, b),
    "<=": lambda a, b: bool(a <= b),
    ">=": lambda a, b: bool(a >= b),
    "<": lambda a, b: bool(a < b),
    ">": lambda a, b: bool(a > b),
    "in": lambda a, b: a in b,
}

_METHODS: dict[str, Callable[[Any, Any], bool]] = {
    "contains": lambda text, part: part in text,
    "startsWith": lambda text, part: bool(text.startswith(part)),
    "endsWith": lambda text, part: bool(text.endswith(part)),
    "matches": lambda text, pattern: re.search(pattern, text) is not None,
}

_MACROS: dict[str, Callable[[Any, Run], Any]] = {
    "all": lambda many, test: _decided(many, test, by=False),
    "exists": lambda many, test: _decided(many, test, by=True),
    "exists_one": lambda many, test: sum(1 for one in many if test(one)) == 1,
    "filter": lambda many, test: [one for one in many if test(one)],
    "map": lambda many, test: [test(one) for one in many],
}

_WORDS: dict[str, object] = {"true": True, "false": False, "null": None}
