"""How torch's caching allocator places large blocks in one expandable segment (c10/cuda/CUDACachingAllocator.cpp, torch 2.11 to 2.13)."""

from dataclasses import dataclass, field

PAGE = 20 * 2**20  # kLargeBuffer: a segment of large blocks grows in steps of this size
ROUNDING = 512  # kMinBlockSize: blocks are multiples of it, and what remains of a hole is split off from this size on


@dataclass(eq=False)
class Block:
    start: int  # its address in the segment
    size: int
    free: bool
    before: "Block | None" = None
    after: "Block | None" = None


@dataclass
class Segment:
    """Memory that was mapped once stays mapped: `mapped` is what torch reports as reserved."""

    mapped: int = 0
    last: Block | None = None
    holes: set[Block] = field(default_factory=set)

    def take(self, size: int) -> Block:
        """The smallest hole that fits, of equal ones the lowest (BlockComparatorSize); else the segment grows at its end.

        The last hole can grow, so it comes last (get_free_block).
        """
        size = -(-size // ROUNDING) * ROUNDING
        block = self.fitting(size) or self.grown(size)
        self.holes.discard(block)
        self.cut(block, size)
        block.free = False
        return block

    def fitting(self, size: int) -> Block | None:
        """A loop of comparisons: a plan asks thousands of times, and is waited for."""
        found, last = None, self.last
        for hole in self.holes:
            if hole.size < size or (hole is last and found is not None):
                continue
            if found is None or found is last or hole.size < found.size or (hole.size == found.size and hole.start < found.start):
                found = hole
        return found

    def grown(self, size: int) -> Block:
        """A free block at the end, extended or made (try_allocate_expandable_block)."""
        end = self.last if self.last is not None and self.last.free else None
        pages = -(-(size - (end.size if end else 0)) // PAGE) * PAGE
        start = self.mapped
        self.mapped += pages
        if end is not None:
            end.size += pages
            return end
        block = Block(start, pages, free=True, before=self.last)
        if self.last is not None:
            self.last.after = block
        self.last = block
        return block

    def cut(self, block: Block, size: int) -> None:
        """Give back what of the hole is not needed (should_split)."""
        if block.size - size < ROUNDING:
            return
        rest = Block(block.start + size, block.size - size, free=True, before=block, after=block.after)
        if rest.after is not None:
            rest.after.before = rest
        else:
            self.last = rest
        block.size, block.after = size, rest
        self.holes.add(rest)

    def give(self, block: Block) -> None:
        """Free a block; it becomes one hole with its free neighbours."""
        block.free = True
        if block.after is not None and block.after.free:
            self.join(block, block.after)
        if block.before is not None and block.before.free:
            block = block.before
            assert block.after is not None
            self.join(block, block.after)
        self.holes.add(block)

    def join(self, block: Block, after: Block) -> None:
        self.holes.discard(after)
        block.size += after.size
        block.after = after.after
        if after.after is not None:
            after.after.before = block
        else:
            self.last = block
