"""The model as a run makes it of the one that it loads: with blocks inserted, and rows for added tokens."""

from dataclasses import replace

from conf.schema import Freeze, Run
from conf.vocabulary import vocabulary_rows
from launcher.errors import ConfigError
from launcher.facts.model.facts import ModelFacts, ModuleKind


def grown(facts: ModelFacts, run: Run) -> ModelFacts:
    """Raises ConfigError when regime.new_blocks do not spread evenly over the layers."""
    with_blocks = with_new_blocks(facts, run.regime.new_blocks) if isinstance(run.regime, Freeze) else facts
    return with_rows(with_blocks, vocabulary_rows(run.model, facts.vocab))


def with_new_blocks(facts: ModelFacts, count: int) -> ModelFacts:
    """After every so many layers a copy of the last of them."""
    if count == 0:
        return facts
    if facts.layers % count:
        possible = ", ".join(str(number) for number in range(1, facts.layers + 1) if facts.layers % number == 0)
        raise ConfigError(f"regime.new_blocks={count} cannot be spread evenly over {facts.layers} layers. Choose one of {possible}.")
    stride = facts.layers // count
    modules = tuple(replace(module, layers=spread(module.layers, stride)) for module in facts.modules)
    return replace(facts, layers=facts.layers + count, modules=modules)


def spread(layers: tuple[int, ...], stride: int) -> tuple[int, ...]:
    """The new numbers of the layers and of their copies."""
    moved = [number + number // stride for number in layers]
    copies = [number + number // stride + 1 for number in layers if (number + 1) % stride == 0]
    return tuple(sorted([*moved, *copies]))


def new_places(layers: int, count: int) -> frozenset[int]:
    """Of the blocks that were inserted, in a model that has `layers` with them."""
    return frozenset(range(layers // count - 1, layers, layers // count)) if count else frozenset()


def with_rows(facts: ModelFacts, rows: int) -> ModelFacts:
    return replace(facts, vocab=rows, modules=tuple(resized(module, facts, rows) for module in facts.modules))


def resized(module: ModuleKind, facts: ModelFacts, rows: int) -> ModuleKind:
    if module.kind == "head":
        biases = module.parameters - module.inputs * module.outputs
        return replace(module, outputs=rows, parameters=(module.inputs + (1 if biases > 0 else 0)) * rows if module.parameters else 0)
    tokens = module.kind == "embedding" and module.parameters == facts.vocab * facts.hidden  # positions have an embedding too in some families
    return replace(module, parameters=rows * facts.hidden) if tokens else module
