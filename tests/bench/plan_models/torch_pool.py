"""A model of PyTorch's caching allocator, as far as it decides how much memory a private pool of CUDA graphs reserves.

What is modelled, of c10/cuda/CUDACachingAllocator.cpp with its default settings: requests are rounded up to 512 bytes;
those up to 1 MiB come from the small pool, in segments of 2 MiB, those below 10 MiB from segments of 20 MiB, larger
ones from segments of their own size rounded up to 2 MiB; the smallest free block that is large enough is taken, the
lowest address of equal ones; what remains of it is split off if it is at least 512 bytes (small pool) or more than
1 MiB (large pool); a freed block merges with its free neighbours in the segment. A pool that belongs to live graphs
gives no segment back to the driver. One stream, one pool: captures that share it see each other's free blocks.

Left out: expandable segments, max_split_size, rounding to powers of two, garbage collection, running out of memory.
Addresses come from the driver there and are counted upwards here; they only break ties.
"""

from __future__ import annotations

from bisect import bisect_left, insort

KIB, MIB = 1 << 10, 1 << 20
ROUND = 512
SMALL, SMALL_SEGMENT = 1 * MIB, 2 * MIB
LARGE, LARGE_SEGMENT = 10 * MIB, 20 * MIB
ROUND_SEGMENT = 2 * MIB


class Block:
    """A part of a segment, in use or free; ``before`` and ``after`` are its neighbours there."""

    __slots__ = ("address", "after", "before", "free", "pool", "size")

    def __init__(self, pool: list[tuple[int, int, Block]], address: int, size: int) -> None:
        self.pool, self.address, self.size = pool, address, size
        self.before: Block | None = None
        self.after: Block | None = None
        self.free = False


class Pool:
    """``reserved`` is what the pool has taken from the driver, ``segments`` in how many pieces, in bytes."""

    def __init__(self) -> None:
        self.reserved = 0
        self.segments = 0
        self._small: list[tuple[int, int, Block]] = []  # free blocks by size, then address
        self._large: list[tuple[int, int, Block]] = []

    def allocate(self, size: int) -> Block:
        size = max(ROUND, -(-size // ROUND) * ROUND)
        pool = self._small if size <= SMALL else self._large
        at = bisect_left(pool, (size, -1))
        block = pool.pop(at)[2] if at < len(pool) else self._segment(pool, size)
        block.free = False
        rest = block.size - size
        if rest >= ROUND if pool is self._small else rest > SMALL:
            tail = Block(pool, block.address + size, rest)
            tail.before, tail.after = block, block.after
            if block.after is not None:
                block.after.before = tail
            block.after, block.size = tail, size
            self._give(tail)
        return block

    def release(self, block: Block) -> None:
        for near in (block.before, block.after):
            if near is None or not near.free:
                continue
            near.pool.pop(bisect_left(near.pool, (near.size, near.address)))
            first, second = (near, block) if near is block.before else (block, near)
            block.address, block.size = first.address, first.size + second.size
            block.before, block.after = first.before, second.after
            if block.before is not None:
                block.before.after = block
            if block.after is not None:
                block.after.before = block
        self._give(block)

    def _give(self, block: Block) -> None:
        block.free = True
        insort(block.pool, (block.size, block.address, block))

    def _segment(self, pool: list[tuple[int, int, Block]], size: int) -> Block:
        if size <= SMALL:
            taken = SMALL_SEGMENT
        elif size < LARGE:
            taken = LARGE_SEGMENT
        else:
            taken = -(-size // ROUND_SEGMENT) * ROUND_SEGMENT
        block = Block(pool, self.reserved, taken)
        self.reserved += taken
        self.segments += 1
        return block
