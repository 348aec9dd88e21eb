"""States and temporaries of optimizers that keep their states in a projection of each matrix's gradient (galore-torch 1.0, apollo-torch 1.0.3)."""

from conf.optimizers import optimizer_row
from conf.schema import Apollo, Galore
from launcher.memory.constants import SMALL_TENSOR, STATE_BLOCK
from launcher.memory.weights.dtypes import Storage
from launcher.memory.weights.parameters import Census


def low_rank_bytes(optim: Galore, census: Census, storage: Storage) -> int:
    """Of every matrix its projector and two moments of the projected gradient; two plain moments of all else."""
    states = sum(count * projected_bytes(optim, inputs, outputs, storage) for inputs, outputs, count in census.shapes)
    rest = census.trained - sum(inputs * outputs * count for inputs, outputs, count in census.shapes)
    if optimizer_row(optim.name).bits == 8:
        small = census.small
        return states + 8 * small + 2 * eight_bit(rest - small)
    return states + 2 * storage.state * rest


def projected_bytes(optim: Galore, inputs: int, outputs: int, storage: Storage) -> int:
    """The smaller side is projected (galore_torch/galore_projector.py, project, proj_type="std"); all in the gradient's dtype."""
    smaller, larger = sorted((inputs, outputs))
    rank = kept_rank(optim, smaller)
    projector, moment = rank * smaller, rank * larger
    if optimizer_row(optim.name).bits == 8:
        return storage.gradient * projector + 2 * (4 * moment if moment < SMALL_TENSOR else eight_bit(moment))
    norm = storage.gradient if isinstance(optim, Apollo) else 0  # of the last update, for its limiter (apollo_torch/apollo.py, scaled_grad)
    return storage.gradient * (projector + 2 * moment) + norm


def kept_rank(optim: Galore, smaller: int) -> int:
    """A decomposition has no more directions than the smaller side (get_orthogonal_matrix); a random projection has as many as it is told."""
    return optim.rank if isinstance(optim, Apollo) else min(optim.rank, smaller)


def eight_bit(elements: int) -> int:
    """One byte each, and an fp32 scale per block (bitsandbytes/optim/optimizer.py)."""
    return elements + 4 * elements // STATE_BLOCK


def low_rank_step_bytes(optim: Galore, census: Census, storage: Storage) -> int:
    """The larger of the whole update of one tensor and, where projectors are decomposed, of that decomposition."""
    update = 2 * storage.gradient * census.largest  # apollo_torch/apollo.py: the scaled gradient, and its quotient by the limiter; galore: fewer
    if isinstance(optim, Apollo):
        return update
    return max(update, max((decomposition_bytes(inputs, outputs, storage) for inputs, outputs, _ in census.shapes), default=0))


def decomposition_bytes(inputs: int, outputs: int, storage: Storage) -> int:
    """torch.linalg.svd in fp32: the gradient's copy, the one it works in, and both orthogonal factors; the solver's own workspace is not counted."""
    smaller, larger = sorted((inputs, outputs))
    copies = 1 if storage.gradient == 4 else 2
    return 4 * (copies * inputs * outputs + smaller * (smaller + larger))
