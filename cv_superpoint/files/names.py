"""Names of files, which may hold any byte but 0 and "/": what can be stored, and what is shown."""

from __future__ import annotations

import os
import unicodedata

AnyPath = str | os.PathLike[str]

_UNFIT = ("Cc", "Cs", "Zl", "Zp")
"""Categories of Unicode: control characters, halves of characters, ends of lines."""
_DIRECTIONS = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
"""Characters that turn the direction of what follows, and so change how a name reads."""


def is_text(name: AnyPath) -> bool:
    """Whether a name is UTF-8, as files that name pictures must have it, and OpenCV's functions.

    OpenCV does not refuse other names: it reads from address 0.
    """
    try:
        os.fspath(name).encode()
    except UnicodeEncodeError:
        return False
    return True


def shown(text: str) -> str:
    r"""Text in one line: what would move the cursor, or is no character, as an escape like \x1b."""
    return "".join(_escaped(each) if _is_unfit(each) else each for each in text)


def _is_unfit(character: str) -> bool:
    return unicodedata.category(character) in _UNFIT or character in _DIRECTIONS


def _escaped(character: str) -> str:
    number = ord(character)
    if 0xDC80 <= number <= 0xDCFF:  # how Python keeps a byte that is no UTF-8
        return f"\\x{number - 0xDC00:02x}"
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
