"""What one step holds."""

from __future__ import annotations

from collections.abc import Sequence

from . import _ffi


class Batch(_ffi.Batch):
    """Real counts of one step: prefill sequences, then extend (speculative) ones, then decode ones of one token each.

    Rows of token tensors are all sequences' tokens one after the other, in that order. Fields may be changed between
    replays; a replay does not keep the batch.

    Args:
        prefill_seqs, prefill_tokens: prefill sequences, and the tokens of all of them together (at least one each).
        extend_seqs, extend_tokens: likewise for sequences that bring several tokens to a history.
        decode_seqs: sequences with one token each.
        query_len: if not 0, a promise that every sequence of the step has exactly this many tokens.
    """

    prefill_seqs: int
    prefill_tokens: int
    extend_seqs: int
    extend_tokens: int
    decode_seqs: int
    query_len: int

    def __init__(
        self,
        prefill_seqs: int = 0,
        prefill_tokens: int = 0,
        extend_seqs: int = 0,
        extend_tokens: int = 0,
        decode_seqs: int = 0,
        query_len: int = 0,
    ) -> None:
        super().__init__(0, prefill_seqs, prefill_tokens, extend_seqs, extend_tokens, decode_seqs, query_len)

    @classmethod
    def of(cls, prefill: Sequence[int] = (), extend: Sequence[int] = (), decode: int = 0) -> Batch:
        """The batch of sequences with these token counts: ``Batch.of(prefill=[30, 7], decode=3)``."""
        return cls(len(prefill), sum(prefill), len(extend), sum(extend), decode)

    @property
    def seqs(self) -> int:
        """Sequences of all kinds."""
        return self.prefill_seqs + self.extend_seqs + self.decode_seqs

    @property
    def tokens(self) -> int:
        """Tokens of all sequences: the real rows of token tensors."""
        return self.prefill_tokens + self.extend_tokens + self.decode_seqs

    def _fields(self) -> dict[str, int]:
        names = ("prefill_seqs", "prefill_tokens", "extend_seqs", "extend_tokens", "decode_seqs", "query_len")
        return {name: int(getattr(self, name)) for name in names}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Batch) and self._fields() == other._fields()

    __hash__ = None  # type: ignore[assignment]  # it can be changed

    def __repr__(self) -> str:
        return f"Batch({', '.join(f'{name}={count}' for name, count in self._fields().items() if count)})"
