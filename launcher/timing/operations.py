"""Floating-point operations of one optimizer step: what the model needs, and what the hardware does with recomputation."""

from dataclasses import dataclass

from conf.checkpointing import recomputed
from conf.regimes import regime_row
from conf.schema import Freeze, Run
from launcher.facts.model import ModelFacts, ModuleKind
from launcher.memory.stages import answer_length, facts_of_stage, forwards_of
from launcher.memory.weights.parameters import census_of, frozen_selection, places


@dataclass(frozen=True)
class StepFlops:
    model: int  # what MFU counts
    hardware: int  # and the forward passes that gradient checkpointing repeats


@dataclass(frozen=True)
class Work:
    """Multiply-adds of one token in one forward pass."""

    matrices: int
    attention: int


def step_flops(facts: ModelFacts, run: Run, tokens: int) -> StepFlops:
    """FLOPs of one optimizer step that learns from `tokens` tokens in sequences of data.cutoff and, where answers are written, those.

    A matrix takes 2 FLOPs per element and token forward, 2 for the gradient of its input and 2 for its own (arXiv:2001.08361, section 2.1).
    A frozen matrix has no gradient of its own, and what lies below the lowest learning layer is not run backward. Attention has two products
    forward and four backward; recomputation is hardware work but not the model's (arXiv:2205.05198, section 5; arXiv:2204.02311, appendix B).
    """
    facts = facts_of_stage(run, facts)
    census = census_of(run, facts)
    head = facts.hidden * facts.vocab
    whole, backward = layer_work(facts, run, 0), layer_work(facts, run, facts.layers - census.depth)
    forward = whole.matrices + whole.attention + head + census.adapters
    # Nothing below the head learns: its input needs no gradient.
    inputs = backward.matrices + 2 * backward.attention + (head if census.depth else 0) + census.adapters
    again = recomputed(run.training.gradient_checkpointing, census.depth)
    kept = layer_work(facts, run, facts.layers - census.depth + again)
    adapters = census.adapters * again // max(census.depth, 1)
    repeated = backward.matrices - kept.matrices + backward.attention - kept.attention + adapters
    model = 2 * tokens * (forward + inputs + learning_elements(facts, run)) + int(2 * tokens * forward * forwards_of(run))
    return StepFlops(model=model, hardware=model + 2 * tokens * repeated)


def layer_work(facts: ModelFacts, run: Run, lowest: int) -> Work:
    """The layers from number `lowest` on; a causal token sees half of its sample on average."""
    matrices = sum(active_elements(facts, module) * sum(number >= lowest for number in module.layers) for module in facts.modules)
    return Work(matrices, (facts.layers - lowest) * facts.heads * facts.head_dim * (run.data.cutoff + answer_length(run)))


def active_elements(facts: ModelFacts, module: ModuleKind) -> int:
    """Elements of the matrix that one token meets: of a mixture, those of its own experts."""
    return module.inputs * module.outputs * (facts.experts_per_token if module.kind == "experts" else 1)


def learning_elements(facts: ModelFacts, run: Run) -> int:
    """Active elements with a gradient of their own; a tied head has one where the embedding learns."""
    census = census_of(run, facts)
    if regime_row(run.regime.name).learns == "an adapter":
        return census.adapters
    chosen = frozen_selection(run.regime, facts) if isinstance(run.regime, Freeze) else places
    return census.head + sum(active_elements(facts, module) * len(chosen(module)) for module in facts.modules if module.layers)
