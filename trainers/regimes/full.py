"""Every weight learns."""

from conf.schema import Run
from trainers.model.build import ModelClass, load_model
from trainers.model.prepared import PreparedModel


def prepare_model(run: Run, model_class: ModelClass) -> PreparedModel:
    return PreparedModel(load_model(run, model_class), peft_config=None)
