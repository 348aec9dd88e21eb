"""Every weight learns."""

from contextlib import nullcontext

from conf.loading import reads_shares
from conf.schema import Run
from trainers.model.build import ModelClass, load_model
from trainers.model.mixtures import has_experts
from trainers.model.prepared import PreparedModel
from trainers.model.shares import without_weights


def prepare_model(run: Run, model_class: ModelClass) -> PreparedModel:
    """Where each rank reads a share of the weights, the model has none of them yet."""
    with without_weights() if reads_shares(run, has_experts(run)) else nullcontext():
        return PreparedModel(load_model(run, model_class), peft_config=None)
