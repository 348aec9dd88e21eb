"""States of the optimizer and what its step needs beside them."""

from typing import assert_never

from conf.optimizers import OptimizerRow, optimizer_row
from conf.schema import Galore, Run
from launcher.memory.constants import PAGED_TENSOR, STATE_BLOCK
from launcher.memory.weights.dtypes import Storage
from launcher.memory.weights.low_rank import low_rank_bytes, low_rank_step_bytes
from launcher.memory.weights.parameters import Census


def is_paged(run: Run) -> bool:
    return optimizer_row(run.optim.name).paged


def state_bytes(run: Run, census: Census, storage: Storage) -> int:
    """All states of all trained elements, before they are split over ranks."""
    row, trained = optimizer_row(run.optim.name), census.trained
    match row.keeps:
        case "nothing":
            return 0
        case "moments":
            return moment_bytes(row, census, storage)
        case "factored moments":
            return factored_bytes(census)
        case "matrix momentum":
            return storage.state * (2 * trained - orthogonalised(census))
        case "projected moments":
            return low_rank_bytes(projecting(run), census, storage)
        case "moments of one layer":
            # trainers/optimizers/block_wise.py: fp32 moments and, of 16-bit weights, a master
            return (8 + (4 if storage.weight == 2 else 0)) * trained
    assert_never(row.keeps)


def projecting(run: Run) -> Galore:
    if not isinstance(run.optim, Galore):
        raise TypeError(f"optim={run.optim.name} projects by its row in conf/optimizers.py, and its settings are not of the type Galore.")
    return run.optim


def moment_bytes(row: OptimizerRow, census: Census, storage: Storage) -> int:
    if row.bits == 8:
        return row.moments * block_wise_bytes(census, flat=storage.master > 0)
    return row.moments * (4 if row.bits == 32 else storage.state) * census.trained


def unpaged_bytes(run: Run, census: Census) -> int:
    """What stays on the GPU of paged states: those of small tensors, and scales (bitsandbytes/optim/optimizer.py, get_state_buffer)."""
    row = optimizer_row(run.optim.name)
    if row.bits == 32:
        return 4 * row.moments * census.unpaged
    exempt = census.small + (census.embedding if census.embedding < PAGED_TENSOR else 0)
    scales = 4 * (census.trained - census.small - census.embedding) // STATE_BLOCK
    return row.moments * (scales + 4 * exempt + max(census.unpaged - exempt, 0))


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
    """Temporaries of the step on one rank."""
    step, on_cpu = optimizer_row(run.optim.name).step, run.node.gpus == 0
    match step:
        case "in place":
            return 0
        case "fused adamw":
            return single_adamw_bytes(census, storage) if on_cpu else 0
        case "foreach adamw":
            # torch/optim/adam.py, _multi_tensor_adam: roots of all second moments at once
            return single_adamw_bytes(census, storage) if on_cpu else storage.state * census.trained
        case "foreach sgd":
            # torch/optim/sgd.py, foreach: decay makes a second list of gradients
            return storage.gradient * census.trained if run.optim.weight_decay > 0 else 0
        case "update by update":
            # transformers/optimization.py: the update, its negation and, from 16 bits, fp32 copies of gradient and weight, one tensor at a time,
            # beside the update of the one before, which a name still holds.
            return census.largest * (16 if storage.weight == 2 else 8) + 4 * census.before_largest
        case "orthogonal":
            return muon_step_bytes(run, census, storage)
        case "projected":
            return low_rank_step_bytes(projecting(run), census, storage)
        case "one layer":
            return badam_step_bytes(run, census, storage)
    assert_never(step)


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
