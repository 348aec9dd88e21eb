"""Whether the checkpoints of a run can be loaded under another sharding, or under ZeRO on other ranks, than those that saved them."""

from conf.mixtures import names_experts
from conf.optimizers import optimizer_row
from conf.schema import Run
from conf.stages import stage_row


def bound_to_layout(run: Run) -> str:
    """Why they cannot: their states are more than one number an element of a parameter, or no test has laid them out anew. Empty: they can."""
    row = optimizer_row(run.optim.name)
    if row.library is not None or row.keeps not in ("moments", "nothing"):
        return f"optim={run.optim.name} keeps states that belong to whole tensors or blocks of them, and they cannot be divided anew"
    if run.training.precision == "fp16_amp":
        return "training.precision=fp16_amp has a loss scale, which each library keeps in a form of its own"
    if stage_row(run.stage.name).learns == "own answers":
        return f"stage={run.stage.name} trains beside further models, and its states have not been laid out anew yet"
    if names_experts(run.model.architecture):
        return "the states of mixtures of experts have not been laid out anew yet"
    return ""
