"""What a choice needs of the model itself: rotary positions to stretch, weights that fill HQQ's groups, a matrix that learns. Ranks would find it
only after the weights are loaded."""

from conf.constants import HQQ_GROUP
from conf.optimizers import optimizer_row
from conf.schema import Freeze, Qlora, Run
from launcher.errors import ConfigError
from launcher.facts.model import ModelFacts
from launcher.memory.weights.parameters import census_of, frozen_selection
from launcher.words import plural

OF_MATRICES = {"matrix momentum": "orthogonalises", "projected moments": "projects"}


def refuse_beyond_model(run: Run, facts: ModelFacts) -> None:
    """
    Raises:
        ConfigError: for layers that cannot be recomputed by themselves, positions that cannot be stretched, 2-bit weights that fill no whole groups,
            and an optimizer of matrices where none learns.
    """
    refuse_layers(run, facts)
    refuse_unstretched(run, facts)
    refuse_odd_groups(run, facts)
    refuse_no_matrix(run, facts)


def refuse_layers(run: Run, facts: ModelFacts) -> None:
    value = run.training.gradient_checkpointing
    if isinstance(value, bool):
        return
    depth = census_of(run, facts).depth
    if value > depth:
        raise ConfigError(
            f"training.gradient_checkpointing={value}: the backward pass goes through {plural(depth, 'layer')}. "
            f"Set a number up to {depth}, or true for all."
        )
    if not layers_counted(facts):
        raise ConfigError(
            f"training.gradient_checkpointing={value} is not possible: memory of {facts.family} is predicted only where all its layers are computed "
            f"again, or none. Set training.gradient_checkpointing=true or false."
        )


def layers_counted(facts: ModelFacts) -> bool:
    """A trace of a family without a table has all its layers in one form."""
    return not facts.architecture


def refuse_unstretched(run: Run, facts: ModelFacts) -> None:
    """As trainers/model/build.py (with_rope_scaling) finds it in transformers' configuration."""
    kind, architecture = run.model.rope_scaling, run.model.architecture
    if kind is None:
        return
    scaling = architecture.get("rope_scaling") or architecture.get("rope_parameters") or {}
    present = scaling.get("rope_type", scaling.get("type", "default"))
    by_layer = "rope_local_base_freq" in architecture or any(isinstance(value, dict) for value in scaling.values())
    if facts.traits.unrotated or by_layer:
        found = "has no rotary positions of one kind"
    elif present in ("default", kind):
        return
    else:
        found = f"already scales them as {present}"
    raise ConfigError(f"model.rope_scaling={kind} cannot be applied: {facts.family} {found}. Set model.rope_scaling=null.")


def refuse_odd_groups(run: Run, facts: ModelFacts) -> None:
    if not isinstance(run.regime, Qlora) or run.regime.bits != 2:
        return
    for module in facts.linears:
        weights = module.inputs * module.outputs
        if weights % HQQ_GROUP:
            raise ConfigError(f"regime.bits=2: {module.name} has {weights} weights, which is not a multiple of {HQQ_GROUP}. Set regime.bits=4 or 8.")


def refuse_no_matrix(run: Run, facts: ModelFacts) -> None:
    does = OF_MATRICES.get(optimizer_row(run.optim.name).keeps)
    if does is None or not isinstance(run.regime, Freeze):
        return
    learning = frozen_selection(run.regime, facts)
    if not any(learning(module) for module in facts.modules if module.kind in ("linear", "router")):
        raise ConfigError(
            f"optim={run.optim.name} {does} only matrices between embedding and head, and regime.layers={run.regime.layers} with "
            f"regime.modules=[{','.join(run.regime.modules)}] lets none of them learn. Use optim=adamw, or let a layer learn."
        )
