"""bench_ops' cases of ops that know sequences: attention over every cache, gathers and metadata."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from op_case import Case, Work, offsets, seqs, state, table, tokens, weight
from op_cases_static import normal

HEADS, KV_HEADS, HEAD_DIM, PAGE = 16, 2, 128, 64
LATENT, ROTARY, NOPE = 256, 64, 128  # of latent attention; values are as wide as NOPE


def cases(work: Work, rng: np.random.Generator) -> Iterator[Case]:
    yield from attention(work, rng)
    yield from latent_attention(work, rng)
    yield from metadata(work, rng)


def pages(work: Work, rng: np.random.Generator) -> tuple[list[Any], int]:
    """cu_num_pages, cache_loc, last_page_len as they are after the step, and how many pages there are."""
    length = work.history + work.tokens // work.seqs
    each = -(-length // PAGE)
    operands = [
        offsets(np.arange(work.seqs + 1, dtype=np.int32) * each),
        table(rng.permutation(work.seqs * each).astype(np.int32)),
        seqs(np.full(work.seqs, length - (each - 1) * PAGE, np.int32)),
    ]
    return operands, work.seqs * each


def attention(work: Work, rng: np.random.Generator) -> Iterator[Case]:
    t, s, length = work.tokens, work.seqs, work.history + work.tokens // work.seqs
    fresh = [tokens(normal(rng, t, HEADS, HEAD_DIM)), *(tokens(normal(rng, t, KV_HEADS, HEAD_DIM)) for _ in range(2))]
    sequences = work.sequences()
    size = f"{HEADS}/{KV_HEADS} x {HEAD_DIM}, {length} keys"

    def attend(torch: Any, q: Any, keys: Any, values: Any) -> Any:
        """Of q [T, N, D] over keys and values [S, length, Nkv, D]."""
        q = q.view(s, t // s, HEADS, HEAD_DIM).transpose(1, 2)
        out = torch.nn.functional.scaled_dot_product_attention(
            q, keys.transpose(1, 2), values.transpose(1, 2), is_causal=not work.history, enable_gqa=True
        )
        return out.transpose(1, 2).reshape(t, HEADS, HEAD_DIM)

    def slots(torch: Any, q: Any, k: Any, v: Any, k_cache: Any, v_cache: Any, *_: Any) -> Any:
        k_cache[:, work.history :], v_cache[:, work.history :] = (x.view(s, -1, KV_HEADS, HEAD_DIM) for x in (k, v))
        return lambda: attend(torch, q, k_cache, v_cache)

    caches = [state(normal(rng, s, length, KV_HEADS, HEAD_DIM)) for _ in range(2)]
    yield Case("attention", work, size, [*fresh, *caches, *sequences], slots, "F.scaled_dot_product_attention")

    def paged(torch: Any, q: Any, k: Any, v: Any, k_cache: Any, v_cache: Any, *index: Any) -> Any:
        rows = index[3].long().view(s, -1)  # cache_loc
        at = torch.arange(work.history, length)
        for cache, new in ((k_cache, k), (v_cache, v)):
            cache[rows[:, at // PAGE], at % PAGE] = new.view(s, -1, KV_HEADS, HEAD_DIM)

        def call() -> Any:
            gathered = (cache[rows].flatten(1, 2)[:, :length] for cache in (k_cache, v_cache))
            return attend(torch, q, *gathered)

        return call

    index, total = pages(work, rng)
    caches = [state(normal(rng, total, PAGE, KV_HEADS, HEAD_DIM)) for _ in range(2)]
    operands = [*fresh, *caches, *sequences[:2], *index]
    yield Case("paged_attention", work, size, operands, paged, "gather, scaled_dot_product")


def latent_attention(work: Work, rng: np.random.Generator) -> Iterator[Case]:
    t, s, length = work.tokens, work.seqs, work.history + work.tokens // work.seqs
    fresh = [
        tokens(normal(rng, t, HEADS, NOPE)),
        tokens(normal(rng, t, HEADS, ROTARY)),
        tokens(normal(rng, t, LATENT)),
        tokens(normal(rng, t, ROTARY)),
        weight(normal(rng, HEADS * 2 * NOPE, LATENT) / LATENT**0.5),
    ]
    sequences = work.sequences()
    scale = (NOPE + ROTARY) ** -0.5
    size = f"{HEADS} x {NOPE}+{ROTARY}, r {LATENT}, {length} keys"
    name = "absorbed, softmax" if work.history else "expanded, scaled_dot_product"

    def attend(torch: Any, q_nope: Any, q_pe: Any, w: Any, rows: Any) -> Any:
        """Of one token a sequence absorbed, of a prompt expanded; rows of the cache are [S, length, r + dr]."""
        ckv, kpe = rows.split([LATENT, ROTARY], -1)
        if work.history:
            keys, values = w.view(HEADS, 2 * NOPE, LATENT).split(NOPE, 1)
            absorbed = torch.einsum("tnd,ndr->tnr", q_nope, keys)
            p = ((absorbed @ ckv.mT + q_pe @ kpe.mT) * scale).softmax(-1)
            return torch.einsum("tnr,ndr->tnd", p @ ckv, values)
        nope, values = (ckv @ w.T).view(s, length, HEADS, 2 * NOPE).transpose(1, 2).split(NOPE, -1)
        keys = torch.cat([nope, kpe[:, None].expand(-1, HEADS, -1, -1)], -1)
        q = torch.cat([q_nope, q_pe], -1).view(s, t, HEADS, NOPE + ROTARY).transpose(1, 2)
        out = torch.nn.functional.scaled_dot_product_attention(q, keys, values, is_causal=True)
        return out.transpose(1, 2).reshape(t, HEADS, NOPE)

    def slots(torch: Any, q_nope: Any, q_pe: Any, ckv: Any, kpe: Any, w: Any, cache: Any, *_: Any) -> Any:
        cache[:, work.history :] = torch.cat([ckv, kpe], -1).view(s, t // s, -1)
        return lambda: attend(torch, q_nope, q_pe, w, cache)

    cache = state(normal(rng, s, length, LATENT + ROTARY))
    yield Case("mla_attention", work, size, [*fresh, cache, *sequences], slots, name)

    def paged(torch: Any, q_nope: Any, q_pe: Any, ckv: Any, kpe: Any, w: Any, cache: Any, *index: Any) -> Any:
        rows = index[3].long().view(s, -1)  # cache_loc
        at = torch.arange(work.history, length)
        cache[rows[:, at // PAGE], at % PAGE] = torch.cat([ckv, kpe], -1).view(s, t // s, -1)
        return lambda: attend(torch, q_nope, q_pe, w, cache[rows].flatten(1, 2)[:, :length])

    index, total = pages(work, rng)
    cache = state(normal(rng, total, PAGE, LATENT + ROTARY))
    yield Case("paged_mla_attention", work, size, [*fresh, cache, *sequences[:2], *index], paged, f"gather, {name}")


def metadata(work: Work, rng: np.random.Generator) -> Iterator[Case]:
    """Gathers, and what others than the host read; a whole prompt's tokens, or one token each."""
    t, s = work.tokens, work.seqs
    cu_seqlens, input_pos, _ = work.sequences()
    size = f"{t} tokens, {s} sequences"

    def gather_tokens(torch: Any, hidden: Any, indices: Any) -> Any:
        return lambda: hidden[indices]

    last = seqs(cu_seqlens.array[1:] - 1)
    operands = [tokens(normal(rng, t, HEADS * HEAD_DIM)), last]
    yield Case("gather_tokens", work, f"{s} of {t} x {HEADS * HEAD_DIM}", operands, gather_tokens, "index")

    def attention_metadata(torch: Any, cu_seqlens: Any, input_pos: Any) -> Any:
        def call() -> Any:
            batch = torch.repeat_interleave(torch.arange(s, dtype=torch.int32), cu_seqlens.diff(), output_size=t)
            return batch, torch.arange(t, dtype=torch.int32) - cu_seqlens[batch] + input_pos[batch]

        return call

    operands = [cu_seqlens, input_pos]
    yield Case("attention_metadata", work, size, operands, attention_metadata, "repeat_interleave, arange")

    def ssm_metadata(torch: Any, cu_seqlens: Any) -> Any:
        def call() -> Any:  # only the entries that count
            starts = torch.cat([torch.arange(0, t, 64, dtype=torch.int32), cu_seqlens[:-1]]).unique()
            of = torch.repeat_interleave(torch.arange(s, dtype=torch.int32), cu_seqlens.diff(), output_size=t)
            return starts // 64, starts % 64, of[starts]

        return call

    yield Case(
        "ssm_metadata",
        work,
        f"{size}, chunk 64",
        [cu_seqlens],
        ssm_metadata,
        "unique, repeat_interleave",
        {"chunk": 64},
    )

    def paged_metadata(torch: Any, cu_num_pages: Any, cache_loc: Any) -> Any:
        def call() -> Any:
            used = torch.arange(32) < cu_num_pages.diff()[:, None]
            return torch.zeros(s, 32, dtype=torch.int32).masked_scatter_(used, cache_loc)

        return call

    operands = pages(work, rng)[0][:2]
    yield Case(
        "paged_metadata", work, f"{size}, 32 pages", operands, paged_metadata, "masked_scatter", {"max_pages": 32}
    )
