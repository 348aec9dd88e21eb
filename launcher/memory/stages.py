"""What each stage holds and runs beside the model that learns: one row a stage, and no other file of the launcher asks for its name."""

from dataclasses import dataclass, replace
from enum import Enum

from conf.schema import Dpo, Lora, Run
from launcher.model_facts import ModelFacts, ModuleKind


class Loss(Enum):
    """Which tensors over the vocabulary exist, and when (launcher/memory/stage_loss.py)."""

    NEXT_TOKEN = "next token"  # inside of the model's forward pass
    SCORE = "score"  # a head of one row
    DPO = "dpo"
    KTO = "kto"
    ORPO = "orpo"
    SIMPO = "simpo"


@dataclass(frozen=True)
class Copies:
    """Whole models that a rank keeps beside the one that learns."""

    reference: int = 0  # the model as it was before training, frozen, in the dtype that is computed in


@dataclass(frozen=True)
class StageRow:
    loss: Loss
    sequences: int = 1  # of one sample of a micro-batch
    reference: bool = False  # what learns is compared with the model as it was before training
    forwards: int = 0  # passes without gradients over as many tokens, for each pass that learns
    measured: bool = False  # on a GPU


STAGES: dict[str, StageRow] = {
    "pt": StageRow(Loss.NEXT_TOKEN, measured=True),
    "sft": StageRow(Loss.NEXT_TOKEN, measured=True),
    "rm": StageRow(Loss.SCORE, sequences=2),
    "dpo": StageRow(Loss.DPO, sequences=2, reference=True, forwards=1),
    "kto": StageRow(Loss.KTO, reference=True, forwards=3),  # own and mismatched answers by the reference, mismatched ones by the policy
    "orpo": StageRow(Loss.ORPO, sequences=2),
    "simpo": StageRow(Loss.SIMPO, sequences=2),
    "ppo": StageRow(Loss.NEXT_TOKEN, reference=True, forwards=2),
    "grpo": StageRow(Loss.NEXT_TOKEN, forwards=1),
}


def stage_row(run: Run) -> StageRow:
    return STAGES[run.stage.name]


def copies_of(run: Run) -> Copies:
    """With adapters the reference is the base itself, its adapter switched off."""
    adapters, precomputed = isinstance(run.regime, Lora), isinstance(run.stage, Dpo) and run.stage.precompute_reference
    return Copies(reference=1 if stage_row(run).reference and not adapters and not precomputed else 0)


def facts_of_stage(run: Run, facts: ModelFacts) -> ModelFacts:
    """The model that the stage trains. A score is a vocabulary of one: a head of its own with one row, where the language model's was."""
    if stage_row(run).loss is not Loss.SCORE:
        return facts
    body = tuple(module for module in facts.modules if module.kind != "head")
    return replace(facts, vocab=1, tied=False, modules=(*body, ModuleKind("score", "head", facts.hidden, 1, facts.hidden, ())))
