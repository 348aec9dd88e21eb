"""States of the optimizer and what its step needs beside them."""

from conf.schema import Run
from launcher.memory.constants import STATE_BLOCK
from launcher.memory.parameters import Census
from launcher.memory.storage import Storage

BLOCK_WISE = ("adamw_8bit", "paged_adamw_8bit")


def state_bytes(run: Run, census: Census, storage: Storage) -> int:
    """All states of all trained elements, before they are split over ranks."""
    name, trained = run.optim.name, census.trained
    if name == "adamw":
        return 2 * storage.state * trained
    if name in BLOCK_WISE:
        return block_wise_bytes(census, flat=storage.master > 0)
    if name == "adafactor":
        return factored_bytes(census)
    return 0  # plain SGD keeps nothing


def block_wise_bytes(census: Census, flat: bool) -> int:
    """Two states of one byte with an fp32 scale per block each; small tensors and embeddings keep fp32 states.

    transformers/trainer.py registers the embeddings' 32 bits; DeepSpeed hands over one flat tensor, which is neither small nor an embedding.
    """
    exempt = 0 if flat else census.small + census.embedding
    eight_bit = census.trained - exempt
    return 2 * (eight_bit + 4 * eight_bit // STATE_BLOCK) + 8 * exempt


def factored_bytes(census: Census) -> int:
    """One fp32 row and one column mean per matrix: below 1/128 of its elements for any width from 256 (arXiv:1804.04235)."""
    return 4 * (census.trained // 128 + census.small)


def step_bytes(run: Run, census: Census, storage: Storage) -> int:
    """Temporaries of the step on one rank: none for fused kernels."""
    if run.optim.name == "adafactor":
        # transformers/optimization.py: the update, its negation and, from 16 bits, fp32 copies of gradient and weight, one tensor at a time.
        return census.largest * (16 if storage.weight == 2 else 8)
    if run.optim.name == "adamw" and run.node.gpus == 0:
        return 2 * storage.state * census.largest  # torch/optim/adam.py, one tensor at a time: root of the second moment, and the quotient
    if run.optim.name == "sgd" and run.optim.weight_decay > 0:
        return storage.gradient * census.trained  # torch/optim/sgd.py, foreach: decay makes a second list of gradients
    return 0
