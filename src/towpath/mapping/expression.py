"""CEL expressions over a message: checked when the file is read, bounded and total when they run."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from difflib import get_close_matches
from functools import cache, partial
from typing import Any

from msgspec import Struct

from ..message import format_time
from .bounds import MOST_ASKED, MOST_MADE, MOST_MATCHED, Bounds, Function, Functions, bounded
from .paths import MISSING, ROOTS, BadPath, Draft, Path, known, parse

LONGEST = 4096
LARGEST = 64 * 1024
DEEPEST = 32
_TOKEN = re.compile(
    r"""(?P<string>[bBrR]{0,2}(?:\"{3}.*?\"{3}|'{3}.*?'{3}|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'))
      |(?P<word>[A-Za-z_]\w*)
      |(?P<number>\d[\w.]*)
      |(?P<space>\s+|//[^\n]*)
      |(?P<mark>.)""",
    re.VERBOSE | re.DOTALL,
)
_SAID = re.compile(r"<input>:(\d+):(\d+): (?:Syntax error: )?(.*)")
_UNDEFINED = re.compile(r"Undefined variable or function: '(\w+)'")
_FAILED = re.compile(r"(?:Python function|Function) '([\w.]+)'")
_CAUSES: dict[type[Exception], str] = {
    TypeError: "its values are of types that do not go together",
    KeyError: "it asks for a key that is not there",
    IndexError: "it asks for an item beyond the end of a list",
    ZeroDivisionError: "it divides by zero",
    OverflowError: "a number is too large",
}
_COSTLY = re.compile(r"\\[wWpP]")
_LITERALS = frozenset({"true", "false", "null", "in"})
_TYPES = frozenset(
    {
        "bool",
        "bytes",
        "double",
        "duration",
        "int",
        "list",
        "map",
        "null_type",
        "string",
        "timestamp",
        "type",
        "uint",
    }
)
MACROS = frozenset({"all", "exists", "exists_one", "filter", "map"})
NATIVE = MACROS | {
    "bytes", "contains", "double", "duration", "dyn", "endsWith", "getDate", "getDayOfMonth", "getDayOfWeek",
    "getFullYear", "getHours", "getMilliseconds", "getMinutes", "getMonth", "getSeconds", "has",
    "getDayOfYear", "int", "matches", "size", "startsWith", "string", "timestamp", "type", "uint",
}  # fmt: skip
# `contains` would hide CEL's own; `lists.range` makes a list of any size out of one number.
_LEFT_OUT = frozenset({"contains", "lists.range"})


class BadExpression(BadPath):
    """An expression cannot be used; `column` (from 0) is where."""


class Failure(Exception):
    """An expression has no value for this message; `missing` names a path that is not there.

    It says what of the expression failed and never what the message holds: it is kept and logged (D08).
    """

    def __init__(self, why: str, missing: str = "") -> None:
        super().__init__(why)
        self.missing = missing


class Token(Struct, frozen=True):
    """A piece of an expression; `kind` is string, word, number or mark."""

    kind: str
    text: str
    start: int
    end: int


class Comprehension(Struct, frozen=True):
    """A macro of an expression: which one, how many items it may have, what of the message its body names."""

    macro: str
    most: int
    paths: tuple[Path, ...]


class Expression:
    """One CEL expression. Paths into the message are looked up here: CEL is handed only what it needs.

    Handing over the whole message would convert all of it, 16 to 600 µs a time; so each path of the text is a
    variable of its own, and a variable is looked up in 1 µs. Raises `BadExpression`.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        compile_program = _library().compile
        if len(text) > LONGEST:
            raise BadExpression(f"an expression may have at most {LONGEST:,} characters")
        try:
            compile_program(text)
        except ValueError as error:
            raise _refused(text, str(error)) from None
        rewriting = Rewriting(text)
        self._paths = rewriting.paths
        self._asked = rewriting.asked
        self._roots = rewriting.roots
        self._functions = {name: _functions()[name] for name in rewriting.functions if name in _functions()}
        self._comprehensions = rewriting.comprehensions
        try:
            self._program = compile_program(rewriting.text)
        except ValueError as error:
            raise _refused(text, str(error)) from None

    def value(self, draft: Draft) -> Any:
        """What it says of a message, as JSON's types. Raises `Failure`."""
        bounds = Bounds()
        context = self._context(draft, self._bound(bounds, draft))
        try:
            value = self._program.execute(context)
        except Exception as error:
            missing = "" if bounds.why else self._missing(error)
            raise Failure(bounds.why or missing or _cause(error), missing) from None
        return _as_json(value)

    def holds(self, draft: Draft) -> bool:
        """Whether it is true of a message. Raises `Failure`, also when it is neither true nor false."""
        value = self.value(draft)
        if type(value) is not bool:
            raise Failure(f"it gives {type(value).__name__}, not true or false")
        return value

    def _bound(self, bounds: Bounds, draft: Draft) -> dict[str, Function]:
        """The functions of this expression, and those that stand at its comprehensions."""
        found = {name: bounds.bound(function) for name, function in self._functions.items()}
        for number, each in enumerate(self._comprehensions):
            named = partial(_found, draft, each.paths)
            found[f"_range{number}"] = partial(bounds.range, each.macro, each.most, named)
            if each.macro == "map":
                found[f"_made{number}"] = partial(bounds.made, number)
        return found

    def _missing(self, error: Exception) -> str:
        """The path that is not there, if that is why it failed."""
        name = _UNDEFINED.match(str(error))
        return next((path.text for own, path in self._paths if name is not None and own == name[1]), "")

    def _context(self, draft: Draft, functions: Functions) -> Any:
        """What CEL may ask for."""
        context = _library().Context(functions=functions) if functions else _library().Context()
        values: dict[str, Any] = {}
        for name, path in self._paths:
            value = draft.find(path)
            if value is None:
                context.add_variable(name, None)
            elif value is not MISSING:
                values[name] = value
        for name, path in self._asked:
            values[name] = draft.find(path) is not MISSING
        for word in self._roots:
            value = draft.root(ROOTS[word])
            if value is None:
                context.add_variable(word, None)
            values[word] = value
        if self._comprehensions:
            for name, value in values.items():  # converted once, not for each item
                context.add_variable(name, value)
        else:
            context.set_variable_resolver(values.get)
        return context


def _found(draft: Draft, paths: Sequence[Path]) -> list[Any]:
    return [draft.find(path) for path in paths]


def _cause(error: Exception) -> str:
    """What failed, in words that hold nothing of the message: what the library says quotes values."""
    function = _FAILED.match(str(error)) or _UNDEFINED.match(str(error))
    if function is not None:
        return f"{function[1]}() cannot take what it is given"
    return next((said for kind, said in _CAUSES.items() if isinstance(error, kind)), "it failed")


class Rewriting:
    """Finds the paths in an expression, and what in it no message or library has."""

    def __init__(self, text: str) -> None:
        self.paths: list[tuple[str, Path]] = []
        self.asked: list[tuple[str, Path]] = []
        self.roots: set[str] = set()
        self.functions: set[str] = set()
        self._tokens = list(_tokens(text))
        self._own = self._variables()
        self._refuse_nesting()
        self._edits: list[tuple[int, int, str]] = []
        self._reading: list[tuple[int, Path]] = []
        self._read()
        self._check_patterns()
        self.comprehensions = [self._bounded(*each) for each in enumerate(self._macros())]
        for start, end, name in sorted(self._edits, reverse=True):
            text = text[:start] + name + text[end:]
        self.text = text

    def _is(self, at: int, *texts: str) -> bool:
        return 0 <= at < len(self._tokens) and self._tokens[at].text in texts

    def _variables(self) -> frozenset[str]:
        """The names that comprehensions make: `x` in `list.exists(x, …)`."""
        found = set()
        for at, token in enumerate(self._tokens):
            if token.text in MACROS and self._is(at + 1, "(") and self._is(at + 3, ","):
                name = self._tokens[at + 2]
                if name.text in ROOTS:
                    raise BadExpression(
                        f'"{name.text}" is a field of the message', "take another name", name.start
                    )
                found.add(name.text)
        return frozenset(found)

    def _refuse_nesting(self) -> None:
        """One comprehension inside another multiplies: nothing bounds the time it takes."""
        open_since: list[bool] = []
        for at, token in enumerate(self._tokens):
            if token.text == "(":
                macro = self._tokens[at - 1] if at and self._is(at - 2, ".") else None
                nests = macro is not None and macro.text in MACROS
                if nests and any(open_since) and macro is not None:
                    title = f"{macro.text} stands inside another comprehension"
                    raise BadExpression(title, "split it into two rules", macro.start)
                open_since.append(nests)
            elif token.text == ")" and open_since:
                open_since.pop()

    def _macros(self) -> list[int]:
        return [
            at
            for at, token in enumerate(self._tokens)
            if token.text in MACROS and self._is(at - 1, ".") and self._is(at + 1, "(")
        ]

    def _bounded(self, number: int, at: int) -> Comprehension:
        """Put a function before a comprehension that looks at its list, and around what `map` makes."""
        macro = self._tokens[at].text
        last, end = self._arguments(at + 1)
        dot = self._tokens[at - 1].start
        self._edits.append((dot, dot, f"._range{number}()"))
        if macro == "map":
            start, close = self._tokens[last].start, self._tokens[end].start
            self._edits += [(start, start, f"_made{number}("), (close, close, ")")]
        inside = range(at, end)
        paths = tuple(path for place, path in self._reading if place in inside)
        return Comprehension(macro, self._most(macro, inside), paths)

    def _most(self, macro: str, inside: range) -> int:
        """How many items a comprehension may have, by what its body does."""
        matching = any(self._is(each, "matches") for each in inside)
        if matching and any(_COSTLY.search(self._tokens[each].text) for each in inside):
            return MOST_MATCHED
        return MOST_MADE if matching or macro in ("map", "filter") else MOST_ASKED

    def _arguments(self, opening: int) -> tuple[int, int]:
        """Where the last argument of a call begins, and where its parenthesis closes."""
        depth, last = 0, opening + 1
        for at in range(opening, len(self._tokens)):
            if self._is(at, "(", "[", "{"):
                depth += 1
            elif self._is(at, ")", "]", "}"):
                depth -= 1
                if depth == 0:
                    return last, at
            elif depth == 1 and self._is(at, ","):
                last = at + 1
        return last, len(self._tokens) - 1

    def _read(self) -> None:
        at = 0
        while at < len(self._tokens):
            token = self._tokens[at]
            if token.kind != "word" or token.text in _LITERALS or self._is_selected(at):
                at += 1
            elif token.text == "has" and self._is(at + 1, "(") and self._begins_path(at + 2):
                at = self._asks(at)
            elif self._begins_path(at):
                at = self._reads(at)
            else:
                at = self._names(at)

    def _is_selected(self, at: int) -> bool:
        """Whether a word is a field or method of what stands before it; a method must be one there is."""
        if not self._is(at - 1, "."):
            return False
        if self._is(at + 1, "("):
            self._called(self._tokens[at], self._tokens[at].text)
        return True

    def _begins_path(self, at: int) -> bool:
        token = self._tokens[at] if at < len(self._tokens) else None
        return token is not None and token.text in ROOTS and not self._is(at + 1, "(")

    def _reads(self, at: int) -> int:
        end, path = self._path(at)
        if path.keys:
            self._replace(at, end, self.paths, "path", path)
        else:
            self.roots.add(path.text)
        self._reading.append((at, path))
        return end

    def _asks(self, at: int) -> int:
        end, path = self._path(at + 2)
        if not self._is(end, ")"):
            raise BadExpression("has() takes a path", "write  has(properties.plan)", self._tokens[at].start)
        self._replace(at, end + 1, self.asked, "has", path)
        return end + 1

    def _replace(self, at: int, end: int, kept: list[tuple[str, Path]], what: str, path: Path) -> None:
        name = f"_{what}{len(kept)}"
        kept.append((name, path))
        self._edits.append((self._tokens[at].start, self._tokens[end - 1].end, name))

    def _path(self, at: int) -> tuple[int, Path]:
        """The path that begins at a token, and where it ends: methods and list items are not part of it."""
        words, at = [self._tokens[at].text], at + 1
        while True:
            if self._is(at, ".") and at + 1 < len(self._tokens) and not self._is(at + 2, "("):
                words.append(f'["{self._tokens[at + 1].text}"]')
                at += 2
            elif self._is(at, "[") and self._is(at + 2, "]") and _is_plain(self._tokens[at + 1]):
                words.append(f"[{self._tokens[at + 1].text}]")
                at += 3
            else:
                break
        path = parse("".join(words))
        return at, Path(".".join([words[0], *path.keys]), path.root, path.keys)

    def _names(self, at: int) -> int:
        """A word that begins no path: a function, a name of a comprehension, a type; or a mistake."""
        token = self._tokens[at]
        if self._is(at + 1, ".") and self._is(at + 3, "(") and token.text not in self._own:
            name = f"{token.text}.{self._tokens[at + 2].text}"
            if name.partition(".")[0] in {each.partition(".")[0] for each in _functions() if "." in each}:
                self._called(token, name)
                return at + 3
        if self._is(at + 1, "("):
            self._called(token, token.text)
        elif token.text not in self._own | _TYPES:
            raise BadExpression(f'no message has "{token.text}"', known(token.text), token.start)
        return at + 1

    def _called(self, token: Token, name: str) -> None:
        if name not in NATIVE and name not in _functions():
            near = get_close_matches(name, [*NATIVE, *_functions()], n=1)
            hint = f'did you mean "{near[0]}"?' if near else "the functions are listed in docs/mapping.md"
            raise BadExpression(f'there is no function "{name}"', hint, token.start)
        self.functions.add(name)

    def _check_patterns(self) -> None:
        """A pattern is tried now, not with the first message; one that a message brings could take long."""
        for at, token in enumerate(self._tokens):
            if token.text == "matches" and self._is(at + 1, "("):
                last, end = self._arguments(at + 1)
                pattern = self._tokens[last]
                if pattern.kind != "string" or end != last + 1:
                    title = "the pattern of matches must be written out"
                    raise BadExpression(title, 'write  event.matches("^Order")', token.start)
                _try_pattern(pattern)


def _try_pattern(pattern: Token) -> None:
    try:
        _library().compile(f'"".matches({pattern.text})').execute({})
    except Exception as error:
        said = str(error).split("error:")[-1].split(". Check")[0].strip()
        raise BadExpression(
            f"the pattern {pattern.text} is no regular expression: {said}", "", pattern.start
        ) from None


def _tokens(text: str) -> Iterator[Token]:
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup or "mark"
        if kind != "space":
            yield Token(kind, match[0], match.start(), match.end())


def _is_plain(token: Token) -> bool:
    return re.fullmatch(r"""'[^'\\]+'|"[^"\\]+\"""", token.text) is not None


def _refused(text: str, said: str) -> BadExpression:
    """The library's first complaint, with its line and column counted from the start of the text."""
    found = _SAID.search(said)
    if found is None:
        return BadExpression("it is not CEL")
    line, column = int(found[1]) - 1, int(found[2]) - 1
    before = sum(len(each) for each in text.splitlines(keepends=True)[:line])
    what = re.sub(r"expecting \{.*", "something is missing here", found[3])
    hint = "compare with ==" if re.search(r"at: '=[^=]", what) else ""
    return BadExpression(f"it is not CEL: {what}", hint, min(before + column, len(text)))


def _as_json(value: Any, depth: int = 0) -> Any:
    """A value of CEL in JSON's types, of bounded size. Raises `Failure`."""
    if depth > DEEPEST:
        raise Failure("its value is nested too deeply")
    match value:
        case None | bool() | int():
            return value
        case float() if value - value == 0:
            return value
        case str() if len(value) <= LARGEST:
            return value
        case datetime():
            return format_time(value)
        case timedelta():
            return value.total_seconds()
        case list() if len(value) <= LARGEST:
            return [_as_json(each, depth + 1) for each in value]
        case dict() if all(type(key) is str for key in value):
            return {key: _as_json(each, depth + 1) for key, each in value.items()}
    raise Failure(f"its value ({type(value).__name__}) cannot be written in a message")


@cache
def _library() -> Any:
    """The CEL library, loaded with the first expression: most configurations have none."""
    import cel

    # It logs what functions are called with; that may be personal data, and `Failure` says what happened.
    logging.getLogger("cel").setLevel(logging.CRITICAL + 1)
    return cel


@cache
def _functions() -> Functions:
    """The functions beyond CEL's own, by the name they are called by."""
    from cel.stdlib import STDLIB_FUNCTIONS

    return bounded({name: made for name, made in STDLIB_FUNCTIONS.items() if name not in _LEFT_OUT})


def words() -> Sequence[str]:
    """Every function an expression may call."""
    return sorted({*NATIVE, *_functions()})
