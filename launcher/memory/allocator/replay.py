"""What torch reserves beyond what it allocates: the large blocks of three training steps, replayed through the allocator's own rules.

A block that was freed is used again only by blocks that fit into it. The optimizer's states are made in the first step, in the midst of what that
step still holds; from the second step on they lie between the holes, and the logits and their gradients, the largest blocks of all, may find room
only behind them. cuBLAS' workspaces are made before (trainers/callbacks/workspaces.py).
"""

from dataclasses import dataclass
from functools import lru_cache

from launcher.memory.allocator.blocks import Blocks, blocks_of
from launcher.memory.allocator.scripts import GRADIENT, Script, Scripts
from launcher.memory.allocator.segment import PAGE, Block, Segment
from launcher.memory.constants import FRAGMENTATION, FRAGMENTED_PAGES, FRAGMENTED_PAGES_AUTOCAST
from launcher.memory.job import Job

SMALL = 2**20  # kSmallSize: smaller blocks live in segments of their own, which hardly waste anything
CHUNKS = 3  # of a chunked loss: from the third on nothing changes
KEPT = 32  # results: while a plan is changed, most changes leave the blocks as they are
STEPS = 3  # the second grows around what the first left behind; from the third on nothing changes


def fragment_bytes(job: Job, allocated: int) -> int:
    """What the smallest cap that still runs has beyond the peak: pages that are only partly used, which the allocator cannot give back."""
    casts = job.storage.autocast and not job.census.adapters
    pages = FRAGMENTED_PAGES_AUTOCAST if casts else FRAGMENTED_PAGES
    return max(pages * PAGE, int(FRAGMENTATION * allocated)) if job.gpu else 0


def reserved_bytes(job: Job, copies: int) -> int:
    """torch.cuda.max_memory_reserved with expandable segments; `copies`: bytes of further models that stay on the GPU."""
    return replayed(blocks_of(job), copies)


@lru_cache(maxsize=KEPT)
def replayed(blocks: Blocks, copies: int) -> int:
    heap = Heap(Segment())
    shares, gathered = Heap(Segment()) if blocks.gathers else heap, Heap(Segment())
    gathered.take_all(blocks.gathers)
    heap.take(blocks.resident + copies)
    heap.take(blocks.workspaces)
    for number in range(STEPS):
        gradients = step(heap, shares, blocks, first=number == 0)
        if blocks.accumulated:
            step(heap, shares, blocks, first=False, added=True)
        heap.give_all(heap.take_all(blocks.flattened))
        if number == 0:
            heap.take_all(blocks.states)
        heap.give(heap.take(blocks.temporaries))
        shares.give_all(gradients)
    return sum(each.pages.mapped for each in {id(each): each for each in (heap, shares, gathered)}.values())


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
    pieces: list[list[Block | None]]  # of every layer; none of those that are computed again
    casts: list[list[Block | None]]
    head_cast: list[Block | None]
    final: Block | None


def step(heap: Heap, shares: Heap, blocks: Blocks, first: bool, added: bool = False) -> list[Block | None]:
    """One forward and backward pass; the gradients it leaves, none where they are added to those of a pass before. `shares` is where those go that
    are split: FSDP2 makes them on a stream of its own."""
    if first:
        heap.take(blocks.late_workspace)
    if blocks.scripts is not None:
        play(heap, blocks.scripts.before, {})
    saved = forward(heap, blocks)
    head = head_of(heap, blocks, saved, first)
    heap.give(saved.final)
    buckets = heap.take_all(blocks.buckets)
    heap.give_all(heap.take_all(blocks.reduction))
    gradients: list[Block | None] = []
    for layer in reversed(range(len(blocks.gradients))):
        found = layer_backward(heap, shares, blocks, saved, layer)
        if added:
            heap.give_all(found)
        else:
            gradients += found
    embedding = heap.take_all(blocks.embedding)
    if blocks.tied:
        embedding, head = summed(heap, blocks, head, embedding), []
    heap.give_all([*saved.inputs, *(cast for layer in saved.casts for cast in layer)])
    outside = [*head, *embedding]  # ZeRO-1 and 2 cut the flat list of gradients: one rank keeps the embedding's whole
    if added:
        heap.give_all(outside)
        return []
    if blocks.gathers or blocks.viewed:
        outside = split(outside, blocks.embedding if blocks.tied else (*blocks.head, *blocks.embedding), heap, shares, blocks)
    return [*outside, *gradients, *buckets]  # runtime/zero/stage_1_and_2.py, record_stream: buckets come back when the reduction stream has passed


def split(wholes: list[Block | None], sizes: tuple[int, ...], heap: Heap, shares: Heap, blocks: Blocks) -> list[Block | None]:
    if blocks.kept_share == 1:
        return wholes
    kept = shares.take_all(tuple(int(blocks.kept_share * size) for size in sizes))
    heap.give_all(wholes)
    return kept


def forward(heap: Heap, blocks: Blocks) -> Saved:
    saved = Saved([], [], [], [], None)
    for layer, casts in enumerate(blocks.casts):
        saved.casts.append(heap.take_all(casts))
        if layer < blocks.recomputed:
            saved.inputs.append(heap.take(blocks.layer_input))
            heap.give_all(heap.take_all(blocks.pieces))
            saved.pieces.append([])
        else:
            saved.pieces.append(heap.take_all(blocks.pieces))
    saved.final = heap.take(blocks.final)
    saved.head_cast = heap.take_all(blocks.head_cast)
    return saved


def head_of(heap: Heap, blocks: Blocks, saved: Saved, first: bool) -> list[Block | None]:
    """The loss, forward and back; the head's gradient."""
    if blocks.scripts is not None:
        return scripted_loss(heap, blocks, blocks.scripts, saved)
    return chunked_loss(heap, blocks, saved, first) if blocks.chunks > 1 else loss(heap, blocks, saved, first)


def play(heap: Heap, script: Script, held: dict[str, Block | None]) -> None:
    """What stays at its end is left in `held`."""
    for name, size in script:
        if size:
            held[name] = heap.take(size)
        else:
            heap.give(held.pop(name))


def scripted_loss(heap: Heap, blocks: Blocks, scripts: Scripts, saved: Saved) -> list[Block | None]:
    held: dict[str, Block | None] = {}
    play(heap, scripts.forward, held)
    end_autocast(heap, blocks, saved)
    play(heap, scripts.backward, held)
    return head_gradient(heap, blocks, saved, held.pop(GRADIENT))


def loss(heap: Heap, blocks: Blocks, saved: Saved, first: bool) -> list[Block | None]:
    """Logits, loss and the gradients of both; the head's gradient.

    Batches differ in length: the first is taken to be a page shorter than the longest, so that the hole it leaves does not hold the longest's logits.
    """
    shorter = PAGE if first else 0
    logits, copy, kept = heap.take(blocks.logits - shorter), heap.take(blocks.copy - shorter), heap.take(blocks.kept - shorter)
    heap.give(copy)
    end_autocast(heap, blocks, saved)
    heap.give(logits)
    picked, softmax = heap.take(blocks.kept - shorter), heap.take(blocks.kept - shorter)
    heap.give_all([picked, kept])
    back = heap.take(blocks.logits - shorter)
    heap.give(softmax)
    if first:
        heap.take(blocks.late_workspace)
    return head_gradient(heap, blocks, saved, back)


def head_gradient(heap: Heap, blocks: Blocks, saved: Saved, back: Block | None) -> list[Block | None]:
    """Beside that of the logits, which is gone then."""
    product = heap.take_all(blocks.head_cast)
    heap.give_all(saved.head_cast)
    if blocks.head_cast:
        heap.give(back)
        back = None
    gradient = heap.take_all(blocks.head)
    heap.give_all([back, *product])
    return gradient


def end_autocast(heap: Heap, blocks: Blocks, saved: Saved) -> None:
    """It ends with the forward pass; its casts of weights stay where the backward pass needs them (ATen/autocast_mode.cpp, clear_cache)."""
    heap.give_all([cast for layer in saved.casts[: blocks.recomputed] for cast in layer])
    saved.casts[: blocks.recomputed] = [[] for _ in saved.casts[: blocks.recomputed]]


def chunked_loss(heap: Heap, blocks: Blocks, saved: Saved, first: bool) -> list[Block | None]:
    """One chunk of tokens after the other (trainers/stages/shared/chunked_loss.py): its logits, and autocast's copy of the head, are made twice.

    Every chunk makes a gradient of the head, which torch adds to the sum of those before it: in a third block, but in place where autocast's copy
    lies between (csrc/autograd/input_buffer.cpp).
    """
    for _ in range(CHUNKS):
        heap.give(chunk_forward(heap, blocks))
    end_autocast(heap, blocks, saved)
    heap.give_all(saved.head_cast)
    total: list[Block | None] = []
    for number in range(CHUNKS):
        cast = heap.take_all(blocks.head_cast)
        kept = chunk_forward(heap, blocks)
        picked, softmax = heap.take(blocks.kept), heap.take(blocks.kept)
        heap.give_all([picked, kept])
        back = heap.take(blocks.logits)
        heap.give(softmax)
        if first and number == 0:
            heap.take(blocks.late_workspace)
        product = heap.take_all(blocks.head_cast)
        heap.give_all([back, *cast] if product else [])
        gradient = heap.take_all(blocks.head)
        heap.give_all(product or [back])
        total = summed(heap, blocks, total, gradient) if number else gradient
    return total


def summed(heap: Heap, blocks: Blocks, total: list[Block | None], gradient: list[Block | None]) -> list[Block | None]:
    if blocks.head_cast:
        heap.give_all(gradient)
        return total
    both = heap.take_all(blocks.head)
    heap.give_all([*total, *gradient])
    return both


def chunk_forward(heap: Heap, blocks: Blocks) -> Block | None:
    """What a chunk keeps: its log-softmax."""
    logits, copy = heap.take(blocks.logits), heap.take(blocks.copy)
    heap.give(logits)
    kept = heap.take(blocks.kept)
    heap.give(copy)
    return kept


def layer_backward(heap: Heap, shares: Heap, blocks: Blocks, saved: Saved, layer: int) -> list[Block | None]:
    """The gradients of one layer; its MLP's work and pieces are gone after two of them."""
    again = layer < blocks.recomputed
    casts = heap.take_all(blocks.casts[layer]) if again else saved.casts[layer]
    pieces = heap.take_all(blocks.pieces) if again else saved.pieces[layer]
    work = heap.take_all(blocks.work)
    gradients = []
    for number, size in enumerate(reversed(blocks.gradients[layer])):
        product = heap.take(size // 2) if casts else None
        gradient = heap.take(size)
        heap.give(product)
        gradients += split([gradient], (size,), heap, shares, blocks)
        if casts:
            heap.give(casts.pop())
        if number == 1:
            heap.give_all([*work, *pieces[blocks.norms + 1 :]])
            work, pieces = [], pieces[: blocks.norms + 1]
    heap.give_all([*work, *pieces, *casts])
    casts.clear()
    if again:
        heap.give(saved.inputs.pop())
    return gradients
