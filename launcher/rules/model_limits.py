"""What a choice needs of the model itself: rotary positions to stretch, weights that fill whole groups, a matrix that learns. Ranks would find it
only after the weights are loaded."""

from conf.constants import HQQ_GROUP, NF4_BLOCK
from conf.optimizers import optimizer_row
from conf.schema import Freeze, Lora, Qlora, Run
from launcher.errors import ConfigError
from launcher.facts.model import ModelFacts, ModuleKind
from launcher.memory.weights.held import as_held
from launcher.memory.weights.parameters import EXPERT_NAMES, adapted_packed, census_of, frozen_selection, is_expert_target, packed_experts
from launcher.rules.regime_pairs import PRODUCT_ROW
from launcher.words import plural

OF_MATRICES = {"matrix momentum": "orthogonalises", "projected moments": "projects"}


def refuse_beyond_model(run: Run, facts: ModelFacts) -> None:
    """
    Raises:
        ConfigError: for layers that cannot be recomputed by themselves, positions that cannot be stretched, weights that fill no whole groups,
            an optimizer of matrices where none learns, and adapters for packed experts.
    """
    refuse_layers(run, facts)
    refuse_unstretched(run, facts)
    refuse_odd_groups(run, facts)
    refuse_odd_products(run, facts)
    refuse_no_matrix(run, facts)
    refuse_expert_targets(run, facts)


def refuse_expert_targets(run: Run, facts: ModelFacts) -> None:
    """PEFT would give packed experts adapters, as trainers/regimes/qlora.py (beside_experts) finds."""
    targets = run.regime.targets if isinstance(run.regime, Lora) else []
    named = [target for target in targets if target.rsplit(".", 1)[-1] in EXPERT_NAMES]
    if named and unadapted_beside_experts(run, facts):
        raise ConfigError(
            f"regime.targets names {', '.join(named)}, which PEFT takes for the routed experts of {facts.family}. These are quantised one by one "
            "under regime=qlora, where their adapters are asked for by one word: regime.targets=[q_proj,v_proj,experts]. Or set regime=lora."
        )


def unadapted_beside_experts(run: Run, facts: ModelFacts) -> list[ModuleKind]:
    """Linear layers that have names of experts, and get no adapter for that reason."""
    packed = facts.traits.expert_adapters and packed_experts(as_held(run).regime, facts)
    return [module for module in facts.linears if is_expert_target(module)] if packed else []


def passed_over(run: Run, facts: ModelFacts) -> tuple[str, ...]:
    """A note where regime.targets=[all-linear] does not reach every linear layer."""
    left_out = sorted({module.name.rsplit(".", 2)[-2] for module in unadapted_beside_experts(run, facts)})
    if not left_out:
        return ()
    beside = f"gate_proj, up_proj and down_proj of {' and '.join(left_out)}"
    if adapted_packed(run.regime, facts):
        return (f"regime.targets: {beside} get no adapters, for PEFT takes their names for those of the routed experts of {facts.family}.",)
    return (
        f"regime.targets: the routed experts of {facts.family} are quantised and get no adapters, nor do {beside}, "
        "whose names PEFT takes for theirs.",
    )


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


def refuse_odd_products(run: Run, facts: ModelFacts) -> None:
    for module in packed_experts(run.regime, facts):
        if module.inputs % PRODUCT_ROW or module.outputs % PRODUCT_ROW:
            raise ConfigError(
                f"regime=qlora: {module.name} has matrices of {module.outputs} x {module.inputs}, and torch's grouped products need multiples of "
                f"{PRODUCT_ROW}. Choose another model, or regime=lora."
            )


def refuse_odd_groups(run: Run, facts: ModelFacts) -> None:
    """bitsandbytes fills up the last block of a linear layer, but experts, whose gate and up are packed apart, stand one behind the other."""
    if not isinstance(run.regime, Qlora) or run.regime.bits == 8:
        return
    group = {4: NF4_BLOCK, 2: HQQ_GROUP}[run.regime.bits]
    linears = facts.linears if run.regime.bits == 2 else ()
    experts = ((module, module.inputs * module.outputs // (2 if is_joined(module) else 1)) for module in packed_experts(run.regime, facts))
    for module, weights in (*((module, module.inputs * module.outputs) for module in linears), *experts):
        if weights % group:
            instead = "4 or 8" if module.kind == "linear" else "8"
            raise ConfigError(
                f"regime.bits={run.regime.bits}: {module.name} has {weights} weights, which is not a multiple of {group}. Set regime.bits={instead}."
            )


def is_joined(module: ModuleKind) -> bool:
    return module.name.endswith("gate_up_proj")


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
