"""Things chosen by name: one sentence, with the nearest known name, where there is none."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar, overload

T = TypeVar("T")


@overload
def choose(kind: str, name: str, table: Mapping[str, T], *, aliases: Mapping[str, str] | None = None) -> T: ...


@overload
def choose(kind: str, name: str, table: Sequence[str], *, aliases: Mapping[str, str] | None = None) -> str: ...


def choose(
    kind: str, name: str, table: Mapping[str, Any] | Sequence[str], *, aliases: Mapping[str, str] | None = None
) -> Any:
    """``table[name]``, or ``name`` itself where the table is nothing but names.

    Args:
      kind: what is chosen ("initializer"), for the message.
      name: the name asked for; capitals count.
      table: what there is, by name, or the names alone.
      aliases: other names, each with the one in the table that it stands for.

    Raises:
      ValueError: there is no such name; the nearest one is suggested, whatever its capitals.
    """
    others = {alias: known for alias, known in (aliases or {}).items() if known in table}
    if isinstance(name, str) and (name in table or name in others):
        known = others.get(name, name)
        return table[known] if isinstance(table, Mapping) else known
    raise ValueError(f"{kind} {name!r} is not one of {', '.join(table)}{_hint(name, [*table, *others])}")


def with_options(
    kind: str, name: str, make: Callable[..., T], options: Mapping[str, Any], *given: Any, also: Sequence[str] = ()
) -> T:
    """``make(*given, **options)``, once it is sure that ``make`` has these options.

    Args:
      kind: what is made ("optimizer"), for the message.
      name: which one.
      make: its parameters after those of ``given`` are the options; what a `functools.partial` has set is none.
      options: what was asked for, by name.
      given: positional arguments.
      also: options that the caller itself sees to, for the message.

    Raises:
      ValueError: ``make`` has no such option; the message lists those that it has and suggests the nearest.
    """
    fixed = make.keywords if isinstance(make, functools.partial) else {}
    known = [option for option in [*inspect.signature(make).parameters][len(given) :] if option not in fixed]
    listed = list(dict.fromkeys([*known, *also]))
    for option in options:
        if option not in known:
            there = f"its options are {', '.join(listed)}" if listed else "it has none"
            raise ValueError(f"{kind} {name!r} has no option {option!r}: {there}{_hint(option, listed)}")
    return make(*given, **options)


def _hint(name: Any, known: Iterable[str]) -> str:
    folded = {one.casefold(): one for one in known}
    near = difflib.get_close_matches(name.casefold(), folded, 1) if isinstance(name, str) else []
    return f"; did you mean {folded[near[0]]!r}?" if near else ""
