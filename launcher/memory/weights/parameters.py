"""How many elements learn, stay, are quantised or are added, and the bytes of the weights."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from conf.constants import ALL_LINEAR, EXPERTS, HQQ_GROUP, NF4_BLOCK, NF4_SCALE_BLOCK
from conf.schema import Badam, Freeze, Lora, Qlora, Regime, Run
from launcher.facts.model import ModelFacts, ModuleKind
from launcher.facts.model.grown import new_places
from launcher.memory.constants import PAGED_TENSOR, SMALL_TENSOR
from launcher.memory.weights.dtypes import Storage

OUTSIDE = (-1,)
HQQ_BITS = 2
EXPERT_NAMES = ("gate_proj", "up_proj", "down_proj")  # of the routed experts' linear layers in transformers 4


@dataclass(frozen=True)
class Census:
    """Elements of the whole model; a tied head counts once, as the embedding."""

    base: int
    quantised: int  # of base
    quantised_rows: int  # int8 keeps one scale for each
    trained: int  # everything with a gradient: base weights, or adapters alone
    adapters: int
    small: int  # of trained, in tensors below bitsandbytes' minimum
    unpaged: int  # of trained, in tensors whose states bitsandbytes never pages
    embedding: int  # of trained
    head: int  # whose gradient the output head receives; a tied head's is the embedding's
    layer: int  # of trained, in one layer
    matrices: int  # of trained, in linear layers and stacked experts
    experts: int  # of matrices, in stacked tensors of three dimensions
    shapes: tuple[tuple[int, int, int], ...]  # of matrices without experts: inputs, outputs and how many
    largest: int  # largest trained tensor
    before_largest: int  # the one that a loop over all updates before it, the largest where several are as large as that
    largest_matrix: int  # largest linear layer of the base
    small_base: int  # norms and biases of the base: ZeRO-3 keeps them whole
    depth: int  # layers that the backward pass runs through
    trained_layers: int  # of depth

    @property
    def trained_base(self) -> int:
        return self.trained - self.adapters

    @property
    def frozen(self) -> int:
        return self.base - self.trained_base

    @property
    def cast(self) -> int:
        """What autocast casts: experts stay as they are (transformers/integrations/moe.py, _grouped_mm)."""
        return self.matrices - self.experts


def census_of(run: Run, facts: ModelFacts) -> Census:
    if isinstance(run.regime, Lora):
        return adapter_census(run.regime, facts, added_rows(run, facts))
    if isinstance(run.regime, Freeze):
        return base_census(facts, frozen_selection(run.regime, facts))
    if isinstance(run.optim, Badam):
        # autocast keeps no copy of a frozen weight for longer than its product, but without checkpointing autograd does
        block = base_census(facts, one_block)
        return replace(block, depth=facts.layers, matrices=block.matrices if run.training.gradient_checkpointing else facts.parameters)
    return base_census(facts, places)


def one_block(module: ModuleKind) -> tuple[int, ...]:
    """BAdam trains a layer at a time; the last one stands for all, of mixtures too, whose first ones may be dense and smaller."""
    return module.layers[-1:]


def named(module: ModuleKind, names: list[str]) -> bool:
    """Whether one of `names` is the module's name or its last parts."""
    return any(f".{module.name}".endswith(f".{name}") for name in names)


def full_name(module: ModuleKind, place: int) -> str:
    return module.name.replace("*", str(place))


def names_part(name: str, chosen: list[str]) -> bool:
    """Whether one of `chosen` is a run of the name's dotted parts, as the freeze regime reads them."""
    return any(f".{part}." in f".{name}.weight." for part in chosen)


def unfrozen_layers(regime: Freeze, layers: int) -> range:
    """Positive: the last n; negative: the first -n; 0: none."""
    count = min(abs(regime.layers), layers)
    return range(layers - count, layers) if regime.layers > 0 else range(count)


def places(module: ModuleKind) -> tuple[int, ...]:
    """The layers that hold one; of a module outside of the layers, one place."""
    return module.layers or OUTSIDE


def frozen_selection(regime: Freeze, facts: ModelFacts) -> Callable[[ModuleKind], tuple[int, ...]]:
    """The places of a kind that learn; a tied weight learns under each of its names."""
    learning = new_places(facts.layers, regime.new_blocks) or unfrozen_layers(regime, facts.layers)
    tied_head = facts.tied and names_part("lm_head", regime.modules)

    def chosen(module: ModuleKind) -> tuple[int, ...]:
        if module.kind == "embedding" and tied_head:
            return OUTSIDE
        return tuple(place for place in places(module) if place in learning or names_part(full_name(module, place), regime.modules))

    return chosen


def base_census(facts: ModelFacts, chosen: Callable[[ModuleKind], tuple[int, ...]]) -> Census:
    """Where weights of the model itself learn, at the chosen places of every kind."""
    selected = [(module, chosen(module)) for module in facts.modules]
    learning = [(module, len(found)) for module, found in selected]
    trained = sum(module.parameters * count for module, count in learning)
    embedding = sum(module.parameters * count for module, count in learning if module.kind == "embedding")
    head = sum(module.parameters * count for module, count in learning if module.kind == "head")
    matrices = sum(module.inputs * module.outputs * count for module, count in learning if module.kind in ("linear", "router"))
    experts = sum(module.parameters * count for module, count in learning if module.kind == "experts")
    shapes = tuple((module.inputs, module.outputs, count) for module, count in learning if module.kind in ("linear", "router") and count)
    layers = {place for module, found in selected if module.layers for place in found}
    return Census(
        base=facts.parameters,
        quantised=0,
        quantised_rows=0,
        trained=trained,
        adapters=0,
        small=sum(module.parameters * count for module, count in learning if largest_tensor(module) < SMALL_TENSOR),
        unpaged=sum(module.parameters * count for module, count in learning if largest_tensor(module) < PAGED_TENSOR),
        embedding=embedding,
        head=facts.vocab * facts.hidden if head or (facts.tied and embedding) else 0,
        layer=max(sum(module.parameters for module, found in selected if number in found) for number in edges(layers)),
        matrices=matrices + experts,
        experts=experts,
        shapes=shapes,
        largest=max((largest_tensor(module) for module, count in learning if count), default=0),
        before_largest=before_largest(in_order(facts, selected)),
        largest_matrix=largest_matrix(facts),
        small_base=small_elements(facts),
        depth=facts.layers if embedding else facts.layers - min(layers, default=facts.layers),
        trained_layers=len(layers),
    )


def edges(layers: set[int]) -> tuple[int, ...]:
    """The lowest and the highest: mixtures may begin with dense ones."""
    return (min(layers), max(layers)) if layers else (0,)


def adapter_targets(regime: Lora, facts: ModelFacts) -> list[ModuleKind]:
    """`all-linear`: every linear layer but the head (peft, utils/constants.py INCLUDE_LINEAR_LAYERS_SHORTHAND)."""
    chosen = [module for module in facts.modules if module.kind in ("linear", "head") and named(module, regime.targets)]
    targets = list(facts.linears) if ALL_LINEAR in regime.targets else chosen
    return [module for module in targets if not (facts.traits.expert_adapters and is_expert_target(module))]


def expert_targets(regime: Lora, facts: ModelFacts) -> list[ModuleKind]:
    """PEFT 0.21 takes targets of these names for the routed experts, which were linear layers of such names in transformers 4, and adapts none of
    the layers that still have them (utils/transformers_weight_conversion.py, _convert_peft_config_moe).

    Packed experts have none of these (trainers/regimes/qlora.py)."""
    if not facts.traits.expert_adapters or packed_experts(regime, facts):
        return []
    alike = [module for module in facts.linears if is_expert_target(module)]  # none where no expert is shared and no layer dense
    adapted = any(ALL_LINEAR in regime.targets or named(module, regime.targets) for module in alike)
    return [module for module in facts.modules if module.kind == "experts"] if adapted else []


def is_expert_target(module: ModuleKind) -> bool:
    return module.name.rsplit(".", 1)[-1] in EXPERT_NAMES


def adapted_packed(regime: Regime, facts: ModelFacts) -> tuple[ModuleKind, ...]:
    """Packed experts that have adapters of their own (trainers/model/adapted_experts.py)."""
    return packed_experts(regime, facts) if isinstance(regime, Lora) and EXPERTS in regime.targets else ()


def expert_factors(regime: Lora, module: ModuleKind) -> tuple[int, int]:
    """Elements of A [experts * rank, inputs] and of B [outputs, rank * experts], each one tensor (peft/tuners/lora/layer.py, ParamWrapper)."""
    width = regime.rank * module.parameters // (module.inputs * module.outputs)
    return width * module.inputs, width * module.outputs


def expert_adapter_elements(regime: Lora, module: ModuleKind) -> int:
    """A pair for every expert; gate and up, in one matrix, have a rank each."""
    experts = module.parameters // (module.inputs * module.outputs)
    rank = regime.rank * (2 if module.name.endswith("gate_up_proj") else 1)
    return experts * rank * (module.inputs + module.outputs)


def adapter_elements(regime: Lora, module: ModuleKind) -> int:
    """A of rank x inputs, B of outputs x rank; dora learns a magnitude per output (arXiv:2402.09353)."""
    return regime.rank * (module.inputs + module.outputs) + (module.outputs if regime.dora else 0)


def added_rows(run: Run, facts: ModelFacts) -> int:
    """Elements of the rows of added tokens, which learn beside an adapter: of the embedding, and of a head of its own."""
    return len(run.model.added_tokens) * facts.hidden * (1 if facts.tied else 2)


def adapter_census(regime: Lora, facts: ModelFacts, rows: int) -> Census:
    targets, experts = adapter_targets(regime, facts), expert_targets(regime, facts)
    packed = adapted_packed(regime, facts)
    routed = sum(expert_adapter_elements(regime, module) * module.instances for module in experts)
    routed += sum(sum(expert_factors(regime, module)) * module.instances for module in packed)
    adapters = rows + routed + sum(adapter_elements(regime, module) * module.instances for module in targets)
    sides = [(regime.rank * side, module.instances) for module in targets for side in (module.inputs, module.outputs)]
    sides += [(factor, module.instances) for module in packed for factor in expert_factors(regime, module)]
    quantised = quantised_layers(regime, facts) if isinstance(regime, Qlora) else ()
    return Census(
        base=facts.parameters,
        quantised=sum(matrix_elements(module) * module.instances for module in quantised),
        quantised_rows=sum(matrix_elements(module) // module.inputs * module.instances for module in quantised),
        trained=adapters,
        adapters=adapters,
        small=sum(elements * count for elements, count in sides if elements < SMALL_TENSOR),
        unpaged=sum(elements * count for elements, count in sides if elements < PAGED_TENSOR),
        embedding=0,
        head=0,
        layer=sum(adapter_elements(regime, module) for module in targets if facts.layers - 1 in module.layers)
        + sum(expert_adapter_elements(regime, module) for module in experts)
        + sum(sum(expert_factors(regime, module)) for module in packed),
        matrices=adapters
        - routed,  # PEFT adds adapters of experts to their weights in fp32 (tuners/lora/layer.py, ParamWrapper); packed ones are cast by us
        experts=0,
        shapes=(),
        largest=max((elements for elements, _ in sides), default=0),
        before_largest=before_largest([regime.rank * side for _ in (1, 2) for module in targets for side in (module.inputs, module.outputs)]),
        largest_matrix=largest_matrix(facts),
        small_base=small_elements(facts),
        depth=facts.layers,
        trained_layers=0,
    )


def quantised_layers(regime: Qlora, facts: ModelFacts) -> tuple[ModuleKind, ...]:
    """HQQ takes every linear layer (trainers/regimes/hqq.py), bitsandbytes those of torch's own class alone; and packed experts."""
    linears = tuple(module for module in facts.linears if module.plain or regime.bits == HQQ_BITS)
    return (*linears, *packed_experts(regime, facts))


def packed_experts(regime: Regime, facts: ModelFacts) -> tuple[ModuleKind, ...]:
    """Stacked experts that are quantised one by one (trainers/model/mixtures.py)."""
    return tuple(module for module in facts.modules if module.kind == "experts" and module.plain) if isinstance(regime, Qlora) else ()


def matrix_elements(module: ModuleKind) -> int:
    """Of a linear layer without its bias, or of all experts of one layer."""
    return module.parameters if module.kind == "experts" else module.inputs * module.outputs


def largest_tensor(module: ModuleKind) -> int:
    return max(module.parameters, 0) if not module.inputs or module.kind == "experts" else module.inputs * module.outputs * (module.parameters > 0)


def in_order(facts: ModelFacts, selected: list[tuple[ModuleKind, tuple[int, ...]]]) -> list[int]:
    """Elements of the tensors that learn, but norms, from the embedding to the head: where a model's own parameters stand."""
    learning = [(module, found) for module, found in selected if found and module.kind != "norm"]
    outside = {kind: [largest_tensor(module) for module, _ in learning if module.kind == kind] for kind in ("embedding", "head")}
    layers = [largest_tensor(module) for number in range(facts.layers) for module, found in learning if number in found]
    return [*outside["embedding"], *layers, *outside["head"]]


def before_largest(sizes: list[int]) -> int:
    largest = max(sizes, default=0)
    return max((before for before, size in zip([0, *sizes], sizes, strict=False) if size == largest), default=0)


def largest_matrix(facts: ModelFacts) -> int:
    return max(module.inputs * module.outputs for module in facts.linears)


def small_elements(facts: ModelFacts) -> int:
    biases = sum((module.parameters - module.inputs * module.outputs) * module.instances for module in facts.linears)
    return biases + sum(module.parameters * module.instances for module in facts.modules if module.kind == "norm")


def quantised_bytes(regime: Qlora, census: Census) -> int:
    """Weights and scales of the quantised layers (bitsandbytes functional.py and nn/modules.py; hqq core/quantize.py)."""
    if regime.bits == 8:
        return census.quantised + 4 * census.quantised_rows
    if regime.bits == 2:
        return census.quantised // 4 + census.quantised // HQQ_GROUP * (2 + 2)
    scales = census.quantised // NF4_BLOCK
    return census.quantised // 2 + (scales + 4 * scales // NF4_SCALE_BLOCK if regime.double_quant else 4 * scales)


def packed_bytes(run: Run, facts: ModelFacts) -> int:
    """The part of those that experts take, which no state of the model names."""
    packed = packed_experts(run.regime, facts)
    if not packed:
        return 0
    assert isinstance(run.regime, Qlora)
    elements = sum(matrix_elements(module) * module.instances for module in packed)
    rows = sum(matrix_elements(module) // module.inputs * module.instances for module in packed)
    return quantised_bytes(run.regime, replace(census_of(run, facts), quantised=elements, quantised_rows=rows))


def weight_bytes(run: Run, census: Census, storage: Storage) -> int:
    """Base and adapters as one unsplit rank holds them, without DeepSpeed's masters."""
    if isinstance(run.optim, Badam):
        return storage.weight * census.base  # each layer takes its turn
    quantised = quantised_bytes(run.regime, census) if isinstance(run.regime, Qlora) else 0
    return quantised + storage.frozen * (census.frozen - census.quantised) + storage.weight * census.trained
