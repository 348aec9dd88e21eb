"""One module for each stage, with MODEL_CLASS, build_arguments and build_trainer; what several stages share is in shared/."""

from types import ModuleType

from conf.schema import Run
from trainers.choices import module_of


def stage_module(run: Run) -> ModuleType:
    return module_of("stage", run.stage.name, "trainers.stages")
