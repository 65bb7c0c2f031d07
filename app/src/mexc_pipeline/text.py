"""Text that others wrote, made safe for one line that a person reads, and JSON that no terminal misreads.

What the exchange, a file or a database says may hold escape sequences, line ends and marks that change the direction or
hide what follows. Whoever prints such text passes it through here; what is kept on the disk stays as it was received.
"""

from __future__ import annotations

import json
import re
from typing import Any

SHORT = 500
"""Characters of a phrase within a line: a reason, an answer, a value."""
LONG = 10_000
"""Characters of a whole line, or of a cell."""

_CUT = "…"
_HIDDEN = re.compile(
    # Letters and marks that take no room or move onto what stands before them without end (Unicode's
    # Default_Ignorable_Code_Point outside of category Cf, and the blank Braille cell); str.isprintable lets them pass.
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)


_secrets: tuple[str, ...] = ()
"""What must not be shown: logins that this process has read. Only ever added to."""
_LEAST_SECRET = 4
"""Characters below which a secret is none that could be told from other text."""
_MASK = "***"


def keep_secret(*texts: str) -> None:
    """From now on none of these is in what :func:`clean` and :func:`json_line` give: whoever was told it could say it
    again, in an answer that is shown and kept."""
    global _secrets
    new = {text for text in texts if len(text) >= _LEAST_SECRET}
    if not new <= set(_secrets):
        _secrets = tuple(sorted(new.union(_secrets), key=len, reverse=True))


def without_secrets(text: str) -> str:
    """``text`` with every known secret masked, and the beginning of one at its end, where it was cut."""
    return _masked(text, _secrets) if _secrets else text


def _masked(text: str, secrets: tuple[str, ...]) -> str:
    for secret in secrets:
        text = text.replace(secret, _MASK)
    for secret in secrets:
        for size in range(min(len(secret), len(text)), _LEAST_SECRET - 1, -1):
            if text.endswith(secret[:size]):
                return text[:-size] + _MASK
    return text


def clean(text: object, most: int = SHORT) -> str:
    """``text`` (bytes: UTF-8, the rest as ``\\xNN``) as one line of at most ``most`` characters.

    What it holds is shown: controls (C0, C1, ESC, line ends), marks of direction, what has no width, lone surrogates
    and unassigned code points become ``\\n``, ``\\x1b``, ``\\u202e`` …; what does not fit is cut, shown by ``…``.
    Known secrets are masked. Cleaning twice changes nothing.
    """
    longest = len(_secrets[0]) if _secrets else 0
    if isinstance(text, bytes):
        shown = text[: 4 * (most + longest + 1)].decode(errors="backslashreplace")
    else:
        shown = text if isinstance(text, str) else str(text)
    shown = without_secrets(shown[: most + longest + 1])[: most + 1]
    if not shown.isprintable() or _HIDDEN.search(shown):
        shown = "".join(c if _is_visible(c) else c.encode("unicode_escape").decode() for c in shown)
    return shown if len(shown) <= most else shown[: max(0, most - 1)] + _CUT


def clean_lines(text: str, indent: str) -> str:
    """A text of ours with line ends of its own (a traceback), each line cleaned and moved in: none looks like a line
    of the log."""
    return "\n".join(indent + clean(line, LONG) for line in text.split("\n"))


def json_line(value: Any) -> str:
    """``value`` as JSON on one line. It means the same and every character of it can be shown: what is not printable is
    escaped as JSON does. What is no JSON type becomes its text."""
    shown = json.dumps(value, default=str, ensure_ascii=False)
    if _secrets:
        shown = _without(shown)
    if shown.isprintable() and not _HIDDEN.search(shown):
        return shown
    # Outside of strings JSON is plain ASCII, so whatever is left to escape stands in a string.
    return "".join(c if _is_visible(c) else json.dumps(c)[1:-1] for c in shown)


def _without(shown: str) -> str:
    """JSON without known secrets, as they are spelled in it."""
    for secret in _secrets:
        shown = shown.replace(json.dumps(secret, ensure_ascii=False)[1:-1], _MASK)
    return shown


def _is_visible(char: str) -> bool:
    return char.isprintable() and not _HIDDEN.match(char)


def with_advice(text: str, todo: str) -> str:
    """What is the matter and what to do about it, as one line."""
    return f"{text}; {todo}" if todo else text


def counted(n: int, what: str) -> str:
    """A number with its noun, as ``1 file`` or ``2 files``."""
    return f"{n:,} {what}" + ("" if n == 1 else "s")


def ago(seconds: float, decimals: int = 0) -> str:
    """How long ago something was, by the wall clock's time of it too: that may be ahead of this host's, where it was
    set back since. Seconds below a minute have so many ``decimals``."""
    if seconds <= -1:
        return f"{duration(-seconds)} in the future"
    return f"{max(0.0, seconds):.{decimals}f} s ago" if seconds < 60 else f"{duration(seconds)} ago"


def duration(seconds: float) -> str:
    """A duration in words as short as a table needs; there is none below 0."""
    seconds = max(0.0, seconds)
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.1f} days"
