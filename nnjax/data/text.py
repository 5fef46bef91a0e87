"""Text: a real one from a checked file, vocabularies that number its parts, and pieces of it to learn the next one."""

from __future__ import annotations

import contextlib
import json
import operator
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nnjax.data import cache as _cache
from nnjax.data.cache import DataError, SourceFile
from nnjax.data.files import read_file
from nnjax.data.subwords import Pair, count_pieces, learn_merges, pieces, split_piece
from nnjax.naming import choose
from nnjax.types import Array

__all__ = [
    "END",
    "PAD",
    "START",
    "UNKNOWN",
    "NextTokens",
    "Vocabulary",
    "load_text",
    "next_token_batches",
    "streams",
    "text_names",
    "word_tokens",
]

CacheFolder = str | os.PathLike[str] | None

PAD, START, END, UNKNOWN = range(4)
"""Reserved numbers: filling after a sequence's end, its start, its end, and what the vocabulary does not hold."""

_RESERVED = ("<pad>", "<start>", "<end>", "<unknown>")
_FORMAT = "nnjax vocabulary 1"
_SHOWN_UNKNOWN = "\N{REPLACEMENT CHARACTER}"
_CACHED_PIECES = 1 << 17

_WORDS = re.compile(r"\w+(?:['’-]\w+)*|[^\w\s]")


def text_names() -> tuple[str, ...]:
    """Every name `load_text` knows."""
    return tuple(_TEXTS)


def load_text(name: str, *, cache: CacheFolder = None) -> str:
    """Load a text; a file that is not in the cache folder is downloaded first.

    | name | length | source |
    |---|---|---|
    | shakespeare | 1,115,394 characters, 65 different | parts of Shakespeare's plays, Karpathy (2015) |

    Args:
        name: one of `text_names()`.
        cache: folder of the data files, as for `nnjax.data.load`; it holds `tinyshakespeare/`.

    Raises:
        ValueError: unknown name.
        DataError: the file is missing and cannot be downloaded, or is not the file it should be.
    """
    return _cache.read(choose("text", name, _TEXTS), cache=cache).decode()


def word_tokens(text: str) -> list[str]:
    """Words, with hyphens and apostrophes inside them, and every other sign by itself; blanks are left out."""
    return _WORDS.findall(text)


@dataclass(frozen=True)
class Vocabulary:
    """Tokens and their numbers; made by `characters`, `words` or `subwords`, or read by `load`.

    Attributes:
        kind: "characters", "words" or "subwords".
        tokens: token k at place k; the first four are reserved (pad 0, start 1, end 2, unknown 3), which no text gives.
        merges: pairs of tokens to be merged, the first learned first; of subwords only.
    """

    kind: str
    tokens: tuple[str, ...]
    merges: tuple[Pair, ...] = ()

    def __post_init__(self) -> None:
        choose("kind", self.kind, tuple(_TOKENS))
        own = self.tokens[len(_RESERVED) :]
        if self.tokens[: len(_RESERVED)] != _RESERVED or not own:
            raise ValueError(f"tokens must be {', '.join(_RESERVED)} and at least one more")
        if not all(isinstance(token, str) and token for token in own) or len(set(own)) < len(own):
            raise ValueError("tokens must be strings, none of them empty or twice there")
        if self.kind == "characters" and max(map(len, own)) > 1:
            raise ValueError("tokens must be single characters in a vocabulary of characters")
        if self.merges and self.kind != "subwords":
            raise ValueError(f"merges are for subwords only; this is a vocabulary of {self.kind}")
        if not {token for left, right in self.merges for token in (left, right, left + right)} <= set(own):
            raise ValueError("merges must be pairs of tokens that make tokens")

    @classmethod
    def characters(cls, texts: str | Iterable[str]) -> Vocabulary:
        """Every character of the texts, in the order of code points.

        Raises:
            ValueError: no text, or only empty ones.
        """
        return cls("characters", (*_RESERVED, *sorted(set().union(*_some(texts)))))

    @classmethod
    def words(cls, texts: str | Iterable[str], *, size: int | None = None, least: int = 1) -> Vocabulary:
        """The words of `word_tokens`, the most frequent first and equally frequent ones by their code points.

        Args:
            texts: to count words in.
            size: how many tokens at most, the reserved ones among them; None for all.
            least: how often a word must occur.

        Raises:
            ValueError: no text, or sizes that leave no word.
        """
        counts = Counter(word for text in _some(texts) for word in word_tokens(text))
        ordered = sorted((word for word in counts if counts[word] >= least), key=lambda word: (-counts[word], word))
        kept = ordered if size is None else ordered[: max(size - len(_RESERVED), 0)]
        if not kept:
            raise ValueError(f"size={size} and least={least} leave none of {len(counts)} words")
        return cls("words", (*_RESERVED, *kept))

    @classmethod
    def subwords(cls, texts: str | Iterable[str], *, merges: int = 8000) -> Vocabulary:
        """Characters and what byte-pair encoding merges of them (Sennrich et al., 2016); see `nnjax.data.subwords`.

        Args:
            texts: to count in; those of two languages together give one vocabulary for both.
            merges: how many at most; fewer where no pair is left that occurs twice.

        Raises:
            ValueError: no text, or a negative number of merges.
        """
        if merges < 0:
            raise ValueError(f"merges={merges} must be at least 0")
        counts = count_pieces(_some(texts))
        learned = learn_merges(counts, merges)
        # Two ways of merging may end in the same token.
        made = dict.fromkeys(left + right for left, right in learned)
        return cls("subwords", (*_RESERVED, *sorted(set().union(*counts)), *made), learned)

    def __len__(self) -> int:
        return len(self.tokens)

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {token: place for place, token in enumerate(self.tokens)}

    @cached_property
    def _ranks(self) -> dict[Pair, int]:
        # A pair learned twice counts from its first time.
        return {pair: rank for rank, pair in reversed([*enumerate(self.merges)])}

    @cached_property
    def _split(self) -> dict[str, list[str]]:
        return {}

    def split(self, text: str) -> list[str]:
        """The tokens of a text, known or not."""
        return _TOKENS[self.kind](self, text)

    def _subwords(self, text: str) -> list[str]:
        found: list[str] = []
        for piece in pieces(text):
            symbols = self._split.get(piece)
            if symbols is None:
                symbols = split_piece(piece, self._ranks)
                if len(self._split) < _CACHED_PIECES:
                    self._split[piece] = symbols
            found += symbols
        return found

    def encode(self, text: str, *, start: bool = False, end: bool = False, unknown: str = "raise") -> np.ndarray:
        """The numbers of a text's tokens, int32 (t,).

        Args:
            text: may be empty.
            start, end: put the number of the start before them, that of the end after them.
            unknown: "raise" where a token is not in the vocabulary, or "mark" it with number 3.

        Raises:
            ValueError: a token that is not in the vocabulary, another ``unknown``.
        """
        choose("unknown", unknown, ("raise", "mark"))
        tokens = self.split(text)
        ids = [self._ids.get(token, UNKNOWN) for token in tokens]
        if unknown == "raise" and UNKNOWN in ids:
            place = ids.index(UNKNOWN)
            raise ValueError(
                f"text has {tokens[place]!r} as token {place}, which is none of the {len(self)} tokens known "
                f"to the vocabulary of {self.kind}; unknown='mark' gives it number {UNKNOWN}"
            )
        return np.array([START] * start + ids + [END] * end, np.int32)

    def decode(self, ids: Array | Sequence[int]) -> str:
        """The text of token numbers (t,), up to the first end; words are set apart by single blanks.

        Characters and subwords give back the very text that was encoded; unknown tokens become U+FFFD.

        Raises:
            ValueError: no sequence of integers, or a number that no token has.
        """
        given = np.asarray(ids)
        if given.ndim != 1 or (given.size and given.dtype.kind not in "iu"):
            raise ValueError(f"ids of {given.dtype} and shape {given.shape} must be integers (t,)")
        if given.size and not (given.min() >= 0 and given.max() < len(self)):
            raise ValueError(f"ids from {given.min()} to {given.max()} must lie between 0 and {len(self) - 1}")
        shown = (*[""] * UNKNOWN, _SHOWN_UNKNOWN, *self.tokens[len(_RESERVED) :])
        ends = np.flatnonzero(given == END)
        kept = given[: ends[0]] if len(ends) else given
        return (" " if self.kind == "words" else "").join(shown[one] for one in kept if one not in (PAD, START))

    def to_json(self) -> str:
        """The vocabulary as JSON text, the same for equal ones."""
        own = self.tokens[len(_RESERVED) :]
        return json.dumps({"format": _FORMAT, "kind": self.kind, "tokens": own, "merges": self.merges})

    @classmethod
    def from_json(cls, text: str | bytes) -> Vocabulary:
        """The vocabulary that `to_json` wrote. Raises DataError where it is damaged or something else."""
        try:
            return cls._of_facts(json.loads(text))
        except (ValueError, TypeError, RecursionError) as error:
            raise DataError(f"is no vocabulary, or a damaged one ({str(error) or type(error).__name__})") from None

    @classmethod
    def _of_facts(cls, facts: dict[str, Any]) -> Vocabulary:
        if not isinstance(facts, dict) or facts.get("format") != _FORMAT:
            raise ValueError(f"its format is not {_FORMAT!r}")
        if not isinstance(facts.get("tokens"), list) or not isinstance(facts.get("merges"), list):
            raise ValueError("its tokens and merges must be lists")
        merges = tuple((left, right) for left, right in facts["merges"])
        return cls(facts.get("kind", ""), (*_RESERVED, *facts["tokens"]), merges)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the vocabulary as JSON; under its name there is the whole of it or what was there before.

        Raises:
            DataError: the file cannot be written.
        """
        path = Path(path)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            with temporary.open("wb") as file:
                file.write(self.to_json().encode("ascii"))
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError as error:
            raise DataError(f"{str(path)!r} cannot be written ({error.strerror})") from error
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Vocabulary:
        """Read what `save` wrote. Raises DataError where the file is missing, damaged or another."""
        try:
            return cls.from_json(read_file(Path(path)))
        except DataError as error:
            raise DataError(f"{str(path)!r} {error}") from None


_TOKENS: dict[str, Callable[[Vocabulary, str], list[str]]] = {
    "characters": lambda _, text: list(text),
    "words": lambda _, text: word_tokens(text),
    "subwords": Vocabulary._subwords,
}


def _some(texts: str | Iterable[str]) -> list[str]:
    """The texts, of which one has to have something in it."""
    found = [texts] if isinstance(texts, str) else list(texts)
    if not any(found):
        raise ValueError(f"texts must hold at least one character; there are {len(found)}, all of them empty")
    return found


# Pieces of a long text


class NextTokens(NamedTuple):
    """Pieces of several streams, and the token after each.

    Attributes:
        x: (k, batch, steps), piece after piece; row b goes on in row b of the next piece.
        y: (k, batch, steps), the token that follows each of x.
    """

    x: np.ndarray
    y: np.ndarray


def streams(ids: Array | Sequence[int], batch: int) -> np.ndarray:
    """A sequence cut into ``batch`` contiguous ones of the same length, (batch, t // batch); the rest is left out.

    Args:
        ids: (t,).
        batch: how many.

    Raises:
        ValueError: fewer tokens than streams, another shape.
    """
    ids, batch = np.asarray(ids), operator.index(batch)
    if ids.ndim != 1:
        raise ValueError(f"ids of shape {ids.shape} must be (t,)")
    if not 1 <= batch <= len(ids):
        raise ValueError(f"batch={batch} must be from 1 to the {len(ids)} tokens there are")
    return ids[: len(ids) // batch * batch].reshape(batch, -1)


def next_token_batches(ids: Array | Sequence[int], batch: int, steps: int) -> NextTokens:
    """Pieces to learn the next token from, in an order that lets a recurrent net keep its state from one to the next.

    The sequence is cut into ``batch`` contiguous streams, and those into pieces of ``steps``, as Karpathy (2015) does.

    Args:
        ids: (t,) token numbers.
        batch: streams side by side.
        steps: tokens of a piece.

    Returns:
        `NextTokens` with k = (t - 1) // batch // steps pieces; what is left over is in none.

    Raises:
        ValueError: numbers below 1, or a sequence too short for one piece.
    """
    ids = np.asarray(ids)
    if batch < 1 or steps < 1:
        raise ValueError(f"batch={batch} and steps={steps} must be at least 1")
    if ids.ndim != 1 or len(ids) <= batch * steps:
        raise ValueError(
            f"ids of shape {ids.shape} must be (t,) with more than batch={batch} times steps={steps} tokens"
        )  # fmt: skip
    # The last token is a target only; each stream's last target is the next stream's first token.
    x, y = streams(ids[:-1], batch), streams(ids[1:], batch)
    k = x.shape[1] // steps
    parts = [one[:, : k * steps].reshape(batch, k, steps).swapaxes(0, 1) for one in (x, y)]
    return NextTokens(*parts)


# Files

_TEXTS = {
    "shakespeare": SourceFile(
        "shakespeare",
        "tinyshakespeare/input.txt",
        1_115_394,
        "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
        "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
    ),
}
