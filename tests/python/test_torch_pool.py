"""The model of PyTorch's caching allocator against cases worked by hand from its rules, and against what PyTorch itself
reserved on a GPU (tests/data/torch_pool)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pytest
from plan_models.torch_pool import KIB, MIB, Pool


@pytest.mark.parametrize(
    ("size", "reserved"),
    [
        (1, 2 * MIB),  # small pool: segments of 2 MiB
        (1 * MIB, 2 * MIB),  # still small
        (1 * MIB + 1, 20 * MIB),  # large pool, below 10 MiB: segments of 20 MiB
        (10 * MIB - 512, 20 * MIB),
        (10 * MIB - 511, 10 * MIB),  # rounded up to 10 MiB, which is not below 10 MiB: its own size
        (11 * MIB, 12 * MIB),  # rounded up to 2 MiB
    ],
)
def test_a_segment_s_size_follows_from_the_request_rounded_to_512(size: int, reserved: int) -> None:
    pool = Pool()
    pool.allocate(size)
    assert (pool.reserved, pool.segments) == (reserved, 1)


def test_small_requests_share_a_segment_of_2_mib() -> None:
    pool = Pool()
    for _ in range(2 * MIB // (3 * 512)):  # 1025 bytes become 1536: 1365 of them fit, and 512 bytes remain
        pool.allocate(1025)
    assert pool.segments == 1
    pool.allocate(512)  # the rest
    assert pool.segments == 1
    pool.allocate(1)
    assert pool.segments == 2


def test_a_large_block_is_split_only_if_more_than_1_mib_remains() -> None:
    pool = Pool()
    pool.allocate(17 * MIB)  # a segment of 18: 1 remains, which is not more than 1, so the block keeps it
    pool.allocate(1 * MIB + 512)
    assert pool.reserved == (18 + 20) * MIB  # no rest to take it from
    # The second came from a segment of 20, and left 19 - 1/2048 there.
    pool.allocate(18 * MIB)
    assert pool.reserved == (18 + 20) * MIB


def test_the_smallest_free_block_that_is_large_enough_is_taken() -> None:
    pool = Pool()
    large, fitting = pool.allocate(40 * MIB), pool.allocate(24 * MIB)
    pool.release(large)
    pool.release(fitting)
    pool.allocate(20 * MIB)  # from the 24, although the 40 came first
    pool.allocate(40 * MIB)  # so the 40 is whole
    assert pool.reserved == 64 * MIB


def test_freed_neighbours_merge_whatever_the_order() -> None:
    pool = Pool()
    whole = pool.allocate(32 * MIB)
    pool.release(whole)
    parts = [pool.allocate(8 * MIB) for _ in range(4)]  # the 32, cut in four
    assert pool.reserved == 32 * MIB
    for k in (0, 2, 3, 1):
        pool.release(parts[k])
    pool.allocate(32 * MIB)
    assert pool.reserved == 32 * MIB


def test_free_blocks_that_are_no_neighbours_cannot_serve_one_request() -> None:
    """Why such a pool holds more than what is live: 16 of 32 MiB are free, and 16 more are reserved."""
    pool = Pool()
    pool.release(pool.allocate(32 * MIB))
    parts = [pool.allocate(8 * MIB) for _ in range(4)]
    pool.release(parts[0])
    pool.release(parts[2])
    pool.allocate(16 * MIB)
    assert pool.reserved == 48 * MIB


def test_small_and_large_requests_do_not_share() -> None:
    pool = Pool()
    pool.release(pool.allocate(20 * MIB))
    pool.allocate(512 * KIB)
    assert pool.reserved == 22 * MIB


# ---- Against recordings --------------------------------------------------------------------------------------------

Events = list[int]  # n > 0: allocate n bytes; -n: release what was allocated n allocations ago


def random_events(seed: int) -> Events:
    state, events, live, allocated = seed, Events(), Events(), 0

    def draw(below: int) -> int:
        nonlocal state
        state = (state * 1103515245 + 12345) % 2**31
        return (state >> 8) % below

    for _ in range(1500):
        if live and draw(100) < 42:
            events.append(live.pop(draw(len(live))) - allocated)
        else:
            scale = draw(4)
            events.append(1 + draw([4 * KIB, MIB, 10 * MIB, 96 * MIB][scale]))
            live.append(allocated)
            allocated += 1
    return events


def layer_events(buckets: Iterable[int], hold: bool) -> Events:
    """32 layers of Llama-3.1-8B's sizes. Units of 1 KiB a token: a hidden row of 4096 in bfloat16 has 8."""
    events, allocated = Events(), 0

    def take(units: int) -> int:
        nonlocal allocated
        events.append(units * tokens * KIB)
        allocated += 1
        return allocated - 1

    def drop(*tensors: int) -> None:
        events.extend(tensor - allocated for tensor in tensors)

    for tokens in buckets:  # noqa: B007  take reads it
        held: list[int] = []
        given: list[int] = []  # what the running segment was given; dropped when it returns
        h = take(8)
        for _ in range(32):
            x = take(8)
            qkv = take(12)
            drop(x)
            q, k, v = take(8), take(2), take(2)
            drop(qkv)
            turned_q = take(8)
            drop(q)
            turned_k = take(2)
            drop(k, *given)
            attended = take(8)  # the dynamic op's output
            drop(turned_q, turned_k, v)
            projected = take(8)
            sum_1 = take(8)
            drop(projected)
            x = take(8)
            gate_up = take(56)
            drop(x)
            product = take(28)
            drop(gate_up)
            down = take(8)
            drop(product)
            sum_2 = take(8)
            drop(sum_1, down)
            given = [h] if hold else [h, attended]
            held += [attended] if hold else []
            h = sum_2
        drop(h, *given, *held)
    return events


def reserved(events: Events) -> list[list[int]]:
    """[event, MiB reserved] whenever that grew."""
    pool, blocks, growth = Pool(), [], []
    before = 0
    for i, event in enumerate(events):
        if event > 0:
            blocks.append(pool.allocate(event))
        else:
            pool.release(blocks[event])
        if pool.reserved != before:
            growth.append([i, pool.reserved // MIB])
        before = pool.reserved
    return growth


BUCKETS = [8192, 4096, 1024, 512, 64]


@pytest.mark.parametrize(
    ("name", "events"),
    [
        ("layers", layer_events(BUCKETS, False)),
        ("layers, dynamic outputs held", layer_events(BUCKETS, True)),
        ("random 1", random_events(1)),
    ],
)
def test_reserves_what_pytorch_reserved(root: Path, name: str, events: Events) -> None:
    recorded = json.loads((root / "tests/data/torch_pool/recorded.json").read_text())
    assert reserved(events) == recorded[name]


def test_differs_only_where_equal_blocks_are_ordered_by_the_driver_s_addresses(root: Path) -> None:
    """The second random sequence goes as recorded for 1,095 of its 1,500 events; then another of several free blocks of
    one size was taken, and the pools end 2 MiB apart. With the segments' addresses in some other orders the model gives
    the whole recording (15 of 200 random orders did)."""
    recorded = json.loads((root / "tests/data/torch_pool/recorded.json").read_text())["random 2"]
    ours = reserved(random_events(2))
    assert [pair for pair in ours if pair[0] < 1095] == [pair for pair in recorded if pair[0] < 1095]
    assert abs(ours[-1][1] - recorded[-1][1]) <= 2
