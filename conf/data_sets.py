"""What a run reads: facts about data sets that the launcher and the trainers share."""

from conf.schema import Data


def evaluates(data: Data) -> bool:
    return data.validation_share > 0 or len(data.evaluation_sets) > 0
