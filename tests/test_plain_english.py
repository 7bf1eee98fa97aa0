"""Pages, docstrings and comments are in plain English: sentences have subjects, idioms are out."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "weights" / "README.md"]
FOLDERS = ("benchmarks", "cv_superpoint", "docs", "examples", "tests", "train")
FRAGMENT = re.compile(
    r"(Afterwards|As|Around|At|Behind|Beside|Between|By|For|From|In|Instead|Into|Likewise|Of|On"
    r"|See|That|To|With|Without)\b(?! ``)"
)
"""First words of a text that lacks its subject: "Of the pairs" instead of "Seed of the pairs"."""
PHRASES = re.compile(
    r"stands? in for|\b(to|can|cannot) be had\b|gone on with|\bby lot\b"
    r"|\bbears? (the|any|wrong|turns)"
    r"|\b(nobody|anybody|somebody|everybody|whoever)\b|\bthose who\b|\bknows?\b.{0,20}\btoo\b"
    r"|\bknows (how|nothing|no|what|where)\b|\bmust care\b|\binsists? on\b|\bhas no say\b"
    r"|\bof now\b|\bnames of before\b|\bby itself alone\b|\bat hand when\b",
    re.IGNORECASE,
)
"""Idioms, and programs described as persons, which readers of other languages stumble over."""
WITHOUT_A_THING = re.compile(
    r"(Asked|Called|Found|Gets|Goes|Handed|Kept|Made|Makes|Read|Reads|Searched|Stays|Told|Those"
    r"|Whose|Written)\b|(How (many|much|often)|Where|Which)\.|Its \w+\."
)
"""First words of an argument's or a field's text that does not name the thing."""
SECTION = re.compile(r"(Args|Attributes|Raises|Returns|Yields|Warns):$")
ENTRY = re.compile(r"([*\w]+(?:, [*\w]+)*): (.*)")


def sources() -> list[Path]:
    paths = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
    assert len(paths) > 200
    return paths


def docstrings(text: str) -> Iterator[tuple[int, str]]:
    """Line and text of every docstring, also of those below the assignment of a name."""
    for node in ast.walk(ast.parse(text)):
        body = getattr(node, "body", None)
        for statement in body if isinstance(body, list) else []:
            if (
                isinstance(statement, ast.Expr)
                and isinstance(statement.value, ast.Constant)
                and isinstance(statement.value.value, str)
            ):
                yield statement.lineno, statement.value.value


def texts(docstring: str) -> Iterator[tuple[int, str]]:
    """Line within a docstring, and text, of its beginning and of every entry of its sections."""
    lines = docstring.splitlines() or [""]
    yield 0, lines[0].strip()
    section, indent = "", 0
    for number, line in enumerate(lines[1:], 1):
        text, depth = line.strip(), len(line) - len(line.lstrip())
        if heading := SECTION.match(text):
            section, indent = heading[1], depth + 4
        elif section and text and depth < indent:
            section = ""
        elif section in ("Returns", "Yields"):
            if depth == indent and SECTION.match(lines[number - 1].strip()):
                yield number, text
        elif section and depth == indent and (entry := ENTRY.match(text)):
            yield number, entry[2]


def test_docstrings_have_subjects() -> None:
    fragments = [
        f"{path.relative_to(ROOT)}:{line + offset}: {text}"
        for path in sources()
        for line, docstring in docstrings(path.read_text(encoding="utf-8"))
        for offset, text in texts(docstring)
        if FRAGMENT.match(text) or (offset and WITHOUT_A_THING.match(text))
    ]
    assert not fragments, "texts without a subject:\n" + "\n".join(fragments)


def test_phrases_are_plain() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{text.count(chr(10), 0, match.start()) + 1}: {match[0]}"
        for path in [*PAGES, *sources()]
        if path.name != Path(__file__).name
        for text in [words(path)]
        for match in PHRASES.finditer(text)
    ]
    assert not found, "phrases to say more plainly:\n" + "\n".join(found)


def words(path: Path) -> str:
    """A page, or a source file's docstrings and comments at their lines, without its code."""
    source = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return source
    lines = [""] * (source.count("\n") + 2)
    for line, docstring in docstrings(source):
        for offset, text in enumerate(docstring.splitlines()):
            lines[line - 1 + offset] = text
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            lines[token.start[0] - 1] += token.string
    return "\n".join(lines)
