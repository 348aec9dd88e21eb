"""Which runs read their weights share by share."""

from conf.regimes import regime_row
from conf.schema import Fsdp, Run
from conf.stages import stage_row


def reads_shares(run: Run, mixture: bool) -> bool:
    """Whether each rank reads from the model's files only what it keeps of them (trainers/model/shares.py).

    Under FSDP2, where every weight learns and comes from the files: no adapter is put beside the weights, no row or head is drawn at random, and no
    second model is made of them. Not of a mixture: experts are stacked as they are read, and a rank that keeps none of them would have none to stack.
    """
    row, rows_stay = stage_row(run.stage.name), not run.model.added_tokens and run.model.vocab_multiple == 1
    whole = row.reference or row.new_head or row.learns == "own answers"
    learns = regime_row(run.regime.name).learns == "every weight"
    return isinstance(run.sharding, Fsdp) and learns and run.model.init == "pretrained" and rows_stay and not whole and not mixture
