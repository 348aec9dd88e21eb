"""What torch reserves beyond what it allocates: the large blocks of three training steps, replayed through the allocator's own rules.

A block that was freed is used again only by blocks that fit into it. The optimizer's states and cuBLAS' workspace are made in the first step, in
the midst of what that step still holds; from the second step on they lie between the holes, and the logits and their gradients, the largest
blocks of all, find room only behind them.
"""

from dataclasses import dataclass

from launcher.memory.blocks import Blocks, blocks_of
from launcher.memory.job import Job
from launcher.memory.segment import PAGE, Block, Segment

SMALL = 2**20  # kSmallSize: smaller blocks live in segments of their own, which hardly waste anything
STEPS = 3  # the second grows around what the first left behind; from the third on nothing changes


def reserved_bytes(job: Job, copies: int) -> int:
    """torch.cuda.max_memory_reserved with expandable segments; `copies`: bytes of further models that stay on the GPU."""
    segment, blocks = Heap(Segment()), blocks_of(job)
    segment.take(blocks.resident + copies)
    for number in range(STEPS):
        gradients = step(segment, blocks, first=number == 0)
        if number == 0:
            segment.take_all(blocks.states)
        segment.give_all(gradients)
    return segment.pages.mapped


@dataclass
class Heap:
    """A segment that passes over small blocks."""

    pages: Segment

    def take(self, size: int) -> Block | None:
        return self.pages.take(size) if size > SMALL else None

    def take_all(self, sizes: tuple[int, ...]) -> list[Block | None]:
        return [self.take(size) for size in sizes]

    def give(self, block: Block | None) -> None:
        if block is not None:
            self.pages.give(block)

    def give_all(self, blocks: list[Block | None]) -> None:
        for block in blocks:
            self.give(block)


@dataclass
class Saved:
    """What a forward pass left for its backward pass."""

    inputs: list[Block | None]  # of the layers
    pieces: list[list[Block | None]]  # of every layer that checkpointing does not compute again
    casts: list[list[Block | None]]
    head_cast: list[Block | None]
    final: Block | None


def step(heap: Heap, blocks: Blocks, first: bool) -> list[Block | None]:
    """One forward and backward pass; the gradients it leaves."""
    if first:
        heap.take(blocks.workspace)
    saved = forward(heap, blocks)
    head = loss(heap, blocks, saved, first)
    heap.give(saved.final)
    heap.give_all(heap.take_all(blocks.reduction))
    gradients = [gradient for layer in reversed(range(len(blocks.gradients))) for gradient in layer_backward(heap, blocks, saved, layer)]
    embedding = heap.take_all(blocks.embedding)
    if blocks.tied:
        summed = heap.take_all(blocks.embedding)
        heap.give_all([*embedding, *head])
        embedding, head = summed, []
    heap.give_all([*saved.inputs, *(cast for layer in saved.casts for cast in layer)])
    return [*head, *gradients, *embedding]


def forward(heap: Heap, blocks: Blocks) -> Saved:
    saved = Saved([], [], [], [], None)
    for casts in blocks.casts:
        saved.casts.append(heap.take_all(casts))
        if blocks.checkpointing:
            saved.inputs.append(heap.take(blocks.layer_input))
            heap.give_all(heap.take_all(blocks.pieces))
        else:
            saved.pieces.append(heap.take_all(blocks.pieces))
    saved.final = heap.take(blocks.final)
    saved.head_cast = heap.take_all(blocks.head_cast)
    return saved


def loss(heap: Heap, blocks: Blocks, saved: Saved, first: bool) -> list[Block | None]:
    """Logits, loss and the gradients of both; the head's gradient.

    Batches differ in length: the first is taken to be a page shorter than the longest, so that the hole it leaves does not hold the longest's logits.
    """
    shorter = PAGE if first else 0
    logits, copy, kept = heap.take(blocks.logits - shorter), heap.take(blocks.copy - shorter), heap.take(blocks.kept - shorter)
    heap.give(copy)
    if blocks.checkpointing:
        heap.give_all([cast for layer in saved.casts for cast in layer])
        saved.casts = []
    heap.give(logits)
    picked, softmax = heap.take(blocks.kept - shorter), heap.take(blocks.kept - shorter)
    heap.give_all([picked, kept])
    back = heap.take(blocks.logits - shorter)
    heap.give(softmax)
    if first:
        heap.take(blocks.workspace)
    product = heap.take_all(blocks.head_cast)
    heap.give_all(saved.head_cast)
    if blocks.head_cast:
        heap.give(back)
        back = None
    gradient = heap.take_all(blocks.head)
    heap.give_all([back, *product])
    return gradient


def layer_backward(heap: Heap, blocks: Blocks, saved: Saved, layer: int) -> list[Block | None]:
    """The gradients of one layer; its MLP's work and pieces are gone after two of them."""
    casts = heap.take_all(blocks.casts[layer]) if blocks.checkpointing else saved.casts[layer]
    pieces = heap.take_all(blocks.pieces) if blocks.checkpointing else saved.pieces[layer]
    work = heap.take_all(blocks.work)
    gradients = []
    for number, size in enumerate(reversed(blocks.gradients[layer])):
        product = heap.take(size // 2) if casts else None
        gradients.append(heap.take(size))
        heap.give(product)
        if casts:
            heap.give(casts.pop())
        if number == 1:
            heap.give_all([*work, *pieces[blocks.norms + 1 :]])
            work, pieces = [], pieces[: blocks.norms + 1]
    heap.give_all([*work, *pieces, *casts])
    casts.clear()
    if saved.inputs:
        heap.give(saved.inputs.pop())
    return gradients
