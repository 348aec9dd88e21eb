"""What each stage reads, how it learns, and what it needs beside the model that learns: one row a stage.

Launcher and trainers read this table. How a stage trains is in trainers/stages; what its loss needs is in launcher/memory/step.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Literal

from conf.rows import row_of
from conf.schema import Dpo, Grpo, Kto, Orpo, Ppo, Pt, Rm, Run, Sft, Simpo, Stage

# Of rows: plain text; conversations that end with an answer; a prompt with two answers; an answer called good or bad; only a prompt.
Kind = Literal["text", "answers", "pairs", "labelled", "prompts"]
# From every next token of given rows, by comparing scores or log-probabilities of given answers, or from answers that the model writes.
Lesson = Literal["next token", "comparison", "own answers"]


class Loss(Enum):
    """Which tensors over the vocabulary exist, and when (launcher/memory/step/stage_loss.py)."""

    NEXT_TOKEN = "next token"  # inside of the model's forward pass
    SCORE = "score"  # a head of one row: the model scores texts and writes none
    DPO = "dpo"
    KTO = "kto"
    ORPO = "orpo"
    SIMPO = "simpo"
    PPO = "ppo"
    GRPO = "grpo"


PAIR_METRICS = ("eval_reward_accuracy", "eval_reward_margin")


@dataclass(frozen=True)
class StageRow:
    settings: type[Stage]  # the type of its YAML file
    reads: Kind
    learns: Lesson
    loss: Loss
    sequences: int = 1  # of one sample of a micro-batch
    least: int = 1  # samples of a micro-batch in training
    reference: bool = False  # what learns is compared with the model as it was before training
    forwards: int = 0  # passes without gradients over as many tokens, for each pass that learns; those of answers are written once a rollout
    read_between: bool = False  # what learns also reads tokens without gradients before each pass that learns
    new_head: bool = False  # a head that begins with random weights learns too
    metrics: tuple[str, ...] = ()  # that an evaluation measures beside eval_loss; each has a direction in conf/metrics.py
    bound: str = ""  # why its numbers change with the samples that pass together; empty: they do not
    trl_experimental: bool = False  # TRL keeps its trainer under trl.experimental, or parts of it, and warns at each import


ANSWERS = "draws its answers in micro-batches"

STAGES: dict[str, StageRow] = {
    "pt": StageRow(Pt, "text", "next token", Loss.NEXT_TOKEN),
    "sft": StageRow(Sft, "answers", "next token", Loss.NEXT_TOKEN),
    "rm": StageRow(Rm, "pairs", "comparison", Loss.SCORE, sequences=2, new_head=True, metrics=PAIR_METRICS),
    "dpo": StageRow(Dpo, "pairs", "comparison", Loss.DPO, sequences=2, reference=True, forwards=1, metrics=PAIR_METRICS),
    "orpo": StageRow(Orpo, "pairs", "comparison", Loss.ORPO, sequences=2, metrics=PAIR_METRICS, trl_experimental=True),
    "simpo": StageRow(Simpo, "pairs", "comparison", Loss.SIMPO, sequences=2, metrics=PAIR_METRICS, trl_experimental=True),
    # forwards: own and mismatched answers by the reference, mismatched ones by the policy; these need a neighbour in the batch
    "kto": StageRow(
        Kto,
        "labelled",
        "comparison",
        Loss.KTO,
        least=2,
        reference=True,
        forwards=3,
        read_between=True,
        metrics=("eval_reward_margin",),
        bound="estimates the divergence from the samples that pass together",
    ),
    # forwards: answers are written, then read by policy, reference and reward model; the new head is one of values
    "ppo": StageRow(
        Ppo,
        "prompts",
        "own answers",
        Loss.PPO,
        reference=True,
        forwards=4,
        new_head=True,
        metrics=("eval_reward",),
        bound=ANSWERS,
        trl_experimental=True,
    ),
    # forwards: answers are written, and read by the reference
    "grpo": StageRow(Grpo, "prompts", "own answers", Loss.GRPO, reference=True, forwards=2, metrics=("eval_reward",), bound=ANSWERS),
}


def stage_row(name: str) -> StageRow:
    """Raises MissingRow where the table has none."""
    return row_of(STAGES, "stage", name, "STAGES in conf/stages.py")


def bound_by(stage: Stage) -> str:
    """Why the loss of a step changes with the samples that pass together; empty: it does not."""
    return stage_row(stage.name).bound


def compares_joined(run: Run) -> bool:
    """Whether answers are compared that are laid end to end (trainers/stages/shared/texts.py)."""
    return run.training.kernels == "fused" and stage_row(run.stage.name).learns == "comparison"
