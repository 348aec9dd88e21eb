"""Keys of the data that hold only together: mixing and its probabilities, streaming and its end, one source of evaluation data."""

from conf.schema import Composed, Data
from launcher.errors import ConfigError

PROBABILITY_ERROR = 1e-6  # of a sum of decimals


def refuse_other_data(run: Composed) -> None:
    """Refuse keys of the data that contradict each other.

    Raises:
        ConfigError: naming both keys and what to leave out.
    """
    data = run.data
    if data.evaluation_sets and data.validation_share > 0:
        raise ConfigError(f"data.evaluation_sets and data.validation_share={data.validation_share} both name evaluation data. Leave one of them out.")
    if not data.mask_prompt and not data.train_history:
        raise ConfigError(
            "data.mask_prompt=false learns everything, and data.train_history=false learns nothing before the last answer. Set one of them to true."
        )
    if data.probabilities is not None:
        refuse_odd_probabilities(data, data.probabilities)
    if not data.streaming:
        return
    if run.training.max_steps is None:
        raise ConfigError("data.streaming=true has no end, so epochs cannot be counted. Set training.max_steps.")
    if data.validation_share > 0:
        raise ConfigError(
            f"data.streaming=true cannot hold out data.validation_share={data.validation_share} of data that is not read yet. "
            "Set data.validation_share=0 and name data.evaluation_sets."
        )


def refuse_odd_probabilities(data: Data, probabilities: list[float]) -> None:
    if data.mixing == "concatenate":
        raise ConfigError("data.probabilities has no effect with data.mixing=concatenate. Use data.mixing=interleave_under or interleave_over.")
    if len(probabilities) != len(data.sets):
        raise ConfigError(f"data.probabilities has {len(probabilities)} values for {len(data.sets)} sets. Give one value for each set.")
    if min(probabilities) <= 0 or abs(sum(probabilities) - 1) > PROBABILITY_ERROR:
        raise ConfigError(f"data.probabilities={probabilities} is not possible. Every value must be above 0, and their sum must be 1.")
