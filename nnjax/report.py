"""What a study reports: rows, as Markdown and as a table on the terminal. `nnjax.results` has the same names."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from typing import Any, NamedTuple


class Row(NamedTuple):
    """One line of a report: a claim, what was measured, and how that compares with what was published."""

    claim: str
    quantity: str
    measured: str
    interval: str
    seeds: int
    published: str
    source: str
    tolerance: str
    verdict: str


def markdown_table(rows: Iterable[Row]) -> str:
    """The rows as a Markdown table; each cell as `markdown_text`."""
    header = [field.capitalize() for field in Row._fields]
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(markdown_text(str(cell)) for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def markdown_text(text: str) -> str:
    """Text as one line of Markdown that shows it: no tag, link, picture, code or cell begins or ends in it."""
    # A bracket alone is text, and most are an interval's: it stays as readable in the file.
    flat = re.sub(r"[\\`]|\](?=[(\[:])", r"\\\g<0>", " ".join(text.splitlines()))
    return flat.replace("&", "&amp;").replace("<", "&lt;").replace("|", "&#124;")


def markdown_code(text: str) -> str:
    """Text as a Markdown code span, whatever it holds: the marks round it are longer than any in it."""
    marks = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    space = " " if "`" in text else ""
    return f"{marks}{space}{' '.join(text.split())}{space}{marks}"


def print_rows(rows: Iterable[Row], title: str, file: Any = None, width: int | None = None) -> None:
    """Print the rows as a table that fits the terminal."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", show_lines=True)
    table.add_column("claim", ratio=5, overflow="fold")
    for name in ("measured", "interval", "published", "verdict"):
        table.add_column(name, ratio=2, overflow="fold")
    for row in rows:
        seeds = f"\n{row.seeds} seeds" if row.seeds else ""
        table.add_row(row.claim, row.measured, row.interval + seeds, row.published, row.verdict)
    # No markup: "[nan, nan]" is an interval, not a style.
    console = Console(file=file or sys.stdout, width=width, markup=False, emoji=False)
    if width is None and not console.is_terminal:
        console = Console(file=file or sys.stdout, width=120, markup=False, emoji=False)
    console.print(table)
