"""What the rows of added tokens cost beside an adapter."""

from conf.regimes import regime_row
from launcher.memory.job import Job
from launcher.memory.terms import Term, Terms


def merged_terms(job: Job) -> Terms:
    """PEFT puts the rows that learn into a copy of the whole embedding at every pass, and its gradient is as large; a head is copied alike.

    peft 0.21, tuners/trainable_tokens/layer.py, get_merged_weights.
    """
    if not (regime_row(job.run.regime.name).learns == "an adapter" and job.run.model.added_tokens):
        return ()
    return (Term("embedding with added rows", 3 * job.storage.compute * job.head, "copies of embedding and head, and one gradient"),)
