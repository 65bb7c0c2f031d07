"""Results as a table of text."""

from __future__ import annotations

from collections.abc import Iterator

from bench.model import Figure, Result


def number(value: float) -> str:
    """Three significant digits, thousands set apart."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def rounded(value: float) -> str:
    """Three significant digits for a sentence, also of large numbers."""
    return number(float(f"{value:.3g}"))


def spread(figure: Figure) -> str:
    """The median, and lowest to highest where there are several takes."""
    if figure.takes == 1:
        return number(figure.value)
    return f"{number(figure.value)} ({number(figure.low)}–{number(figure.high)})"


def verdict(figure: Figure) -> str:
    """What was asked, and whether it was met."""
    return "" if figure.met is None else f"{figure.target} {'met' if figure.met else 'MISSED'}"


def lines(result: Result) -> Iterator[str]:
    """The result for a terminal."""
    yield f"\n{result.row}: {result.title} ({result.seconds:.0f} s)"
    cells = [(f.what, f.who, spread(f), f.unit, verdict(f)) for f in result.figures]
    widths = [max(len(row[n]) for row in cells) for n in range(4)] if cells else []
    for what, who, value, unit, said in cells:
        padded = f"  {what:<{widths[0]}}  {who:<{widths[1]}}  {value:>{widths[2]}} {unit:<{widths[3]}}  {said}"
        yield padded.rstrip()
    for name, points in result.curves.items():
        yield f"  {name}:"
        for point in points:
            yield "    " + "  ".join(f"{k} {number(v) if isinstance(v, int | float) else v}" for k, v in point.items())
    yield from (f"  note: {note}" for note in result.notes)
