"""Things chosen by name: one sentence, with the nearest known name, where there is none."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")


def choose(kind: str, name: str, table: Mapping[str, T]) -> T:
    """``table[name]``.

    Args:
      kind: what is chosen ("initializer"), for the message.
      name: the name asked for.
      table: what there is, by name.

    Raises:
      ValueError: there is no such name; the nearest one is suggested.
    """
    if isinstance(name, str) and name in table:
        return table[name]
    near = difflib.get_close_matches(name, table, 1) if isinstance(name, str) else []
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"{kind} {name!r} is not one of {', '.join(table)}{hint}")
