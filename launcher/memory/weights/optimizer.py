"""States of the optimizer and what its step needs beside them."""

from conf.schema import Badam, Galore, Run
from launcher.memory.constants import PAGED_TENSOR, STATE_BLOCK
from launcher.memory.weights.dtypes import Storage
from launcher.memory.weights.low_rank import low_rank_bytes, low_rank_step_bytes
from launcher.memory.weights.parameters import Census

TORCH_ADAMW = ("adamw", "adamw_foreach")
FP32_STATES = {"paged_adamw": 2, "lion": 1}  # bitsandbytes/optim/optimizer.py: 32-bit states are fp32 whatever the weights are
BLOCK_WISE = {"adamw_8bit": 2, "paged_adamw_8bit": 2, "lion_8bit": 1, "paged_lion_8bit": 1}  # states
PAGED = ("paged_adamw", "paged_adamw_8bit", "paged_lion_8bit")


def state_bytes(run: Run, census: Census, storage: Storage) -> int:
    """All states of all trained elements, before they are split over ranks."""
    name, trained = run.optim.name, census.trained
    if isinstance(run.optim, Galore):
        return low_rank_bytes(run.optim, census, storage)
    if isinstance(run.optim, Badam):
        return (8 + (4 if storage.weight == 2 else 0)) * trained  # trainers/optimizers/block_wise.py: fp32 moments and, of 16-bit weights, a master
    if name in TORCH_ADAMW:
        return 2 * storage.state * trained
    if name in FP32_STATES:
        return 4 * FP32_STATES[name] * trained
    if name in BLOCK_WISE:
        return BLOCK_WISE[name] * block_wise_bytes(census, flat=storage.master > 0)
    if name == "muon":
        return storage.state * (2 * trained - orthogonalised(census))
    if name == "adafactor":
        return factored_bytes(census)
    return 0  # plain SGD keeps nothing


def unpaged_bytes(run: Run, census: Census) -> int:
    """What stays on the GPU of paged states: those of small tensors, and scales (bitsandbytes/optim/optimizer.py, get_state_buffer)."""
    name = run.optim.name
    if name in FP32_STATES:
        return 4 * FP32_STATES[name] * census.unpaged
    exempt = census.small + (census.embedding if census.embedding < PAGED_TENSOR else 0)
    scales = 4 * (census.trained - census.small - census.embedding) // STATE_BLOCK
    return BLOCK_WISE[name] * (scales + 4 * exempt + max(census.unpaged - exempt, 0))


def block_wise_bytes(census: Census, flat: bool) -> int:
    """One state of one byte with an fp32 scale per block; small tensors and embeddings keep fp32 states.

    transformers/trainer.py registers the embeddings' 32 bits; DeepSpeed hands over one flat tensor, which is neither small nor an embedding.
    """
    exempt = 0 if flat else census.small + census.embedding
    eight_bit = census.trained - exempt
    return eight_bit + 4 * eight_bit // STATE_BLOCK + 4 * exempt


def orthogonalised(census: Census) -> int:
    """Elements that Muon keeps one momentum for (trainers/optimizers/build.py): matrices, but neither stacked experts nor embedding and head."""
    return census.matrices - census.experts


def factored_bytes(census: Census) -> int:
    """One fp32 row and one column mean per matrix: below 1/128 of its elements for any width from 256 (arXiv:1804.04235)."""
    return 4 * (census.trained // 128 + census.small)


def step_bytes(run: Run, census: Census, storage: Storage) -> int:
    """Temporaries of the step on one rank: none for fused kernels."""
    if isinstance(run.optim, Galore):
        return low_rank_step_bytes(run.optim, census, storage)
    if isinstance(run.optim, Badam):
        return badam_step_bytes(run, census, storage)
    if run.optim.name == "adafactor":
        # transformers/optimization.py: the update, its negation and, from 16 bits, fp32 copies of gradient and weight, one tensor at a time, beside
        # the update of the one before, which a name still holds.
        return census.largest * (16 if storage.weight == 2 else 8) + 4 * census.before_largest
    if run.optim.name == "muon":
        return muon_step_bytes(run, census, storage)
    if run.optim.name in TORCH_ADAMW and run.node.gpus == 0:
        return single_adamw_bytes(census, storage)
    if run.optim.name == "adamw_foreach":
        return storage.state * census.trained  # torch/optim/adam.py, _multi_tensor_adam: roots of all second moments at once
    if run.optim.name == "sgd" and run.optim.weight_decay > 0:
        return storage.gradient * census.trained  # torch/optim/sgd.py, foreach: decay makes a second list of gradients
    return 0


def badam_step_bytes(run: Run, census: Census, storage: Storage) -> int:
    """trainers/optimizers/block_wise.py: 16-bit gradients become fp32 weight by weight, and the 16-bit one goes; on a CPU AdamW's own temporaries."""
    casts = 0 if storage.gradient == 4 else 4 * census.largest
    return casts + (2 * 4 * census.largest if run.node.gpus == 0 else 0)


def single_adamw_bytes(census: Census, storage: Storage) -> int:
    """torch/optim/adam.py, one tensor at a time: root of the second moment, and the quotient."""
    return 2 * storage.state * census.largest


def muon_step_bytes(run: Run, census: Census, storage: Storage) -> int:
    """torch/optim/_muon.py, one matrix at a time: the update, two iterates and two Gram matrices in bf16, at most as large as it; then AdamW."""
    largest = census.largest if census.adapters else census.largest_matrix
    return max((storage.gradient + 8) * largest, single_adamw_bytes(census, storage) if run.node.gpus == 0 else 0)
