"""Pairs of a stage and another choice that cannot work."""

from conf.optimizers import optimizer_row
from conf.schema import Dpo, Lora, Run
from conf.stages import Loss, compares_joined, stage_row
from launcher.rules.rule import Rule

STAGE_RULES: tuple[Rule, ...] = (
    Rule(
        "packing-stage",
        lambda run: run.data.packing and stage_row(run.stage.name).learns != "next token",
        "A score or an answer's log-probability belongs to one row. Samples that share a row would share one value.",
        "data.packing=false",
    ),
    Rule(
        "loss-stage",
        lambda run: run.training.loss != "plain" and stage_row(run.stage.name).learns != "next token" and not chunks_answers(run),
        "The fused loss is a next-token loss, and the chunked one is too, but for the answers of training.kernels=fused. This stage compares "
        "log-probabilities or scores.",
        "training.loss=plain",
    ),
    Rule(
        "neftune-stage",
        lambda run: run.training.neftune_alpha is not None and stage_row(run.stage.name).learns != "next token",
        "NEFTune draws new noise for every forward pass. It would disturb what is compared, and the reference too.",
        "training.neftune_alpha=null",
    ),
    Rule(
        "dropout-stage",
        lambda run: isinstance(run.regime, Lora) and run.regime.dropout > 0 and stage_row(run.stage.name).learns == "comparison",
        "TRL switches every dropout off in this stage, so that log-probabilities can be compared. The key would have no effect.",
        "regime.dropout=0",
    ),
    Rule(
        "dropout-ppo",
        lambda run: isinstance(run.regime, Lora) and run.regime.dropout > 0 and stage_row(run.stage.name).loss is Loss.PPO,
        "An answer must be as likely when it is learned from as when it was written, so every dropout is off. The key would have no effect.",
        "regime.dropout=0",
    ),
    Rule(
        "unmasked-stage",
        lambda run: not run.data.mask_prompt and stage_row(run.stage.name).learns != "next token",
        "This stage compares answers and never learns prompts (but orpo always learns the prompts of chosen answers).",
        "data.mask_prompt=true",
    ),
    Rule(
        "streaming-stage",
        lambda run: run.data.streaming and stage_row(run.stage.name).learns != "next token",
        "The trainers of this stage read rows by their number.",
        "data.streaming=false",
    ),
    Rule(
        "generate-rm",
        lambda run: run.evaluation.generate is not None and stage_row(run.stage.name).loss is Loss.SCORE,
        "A reward model outputs a score and cannot generate text.",
        "evaluation.generate=null",
    ),
    Rule(
        "muon-head",
        lambda run: optimizer_row(run.optim.name).keeps == "matrix momentum" and stage_row(run.stage.name).new_head,
        "Muon makes matrices orthogonal, and the head for rewards or values is one row. Only its direction would be learned.",
        "optim=adamw",
    ),
    Rule(
        "kto-alone",
        lambda run: too_few_at_once(run),
        "KTO gives each prompt the answer of its neighbour in the batch, to estimate how far the policy has moved. A batch of one has no neighbour.",
        "training.micro_batch=2",
    ),
    Rule(
        "smoothing-loss",
        lambda run: isinstance(run.stage, Dpo) and run.stage.label_smoothing > 0 and run.stage.loss not in ("sigmoid", "robust"),
        "The losses hinge and ipo have no label smoothing. The key would have no effect.",
        "stage.label_smoothing=0",
    ),
)


def chunks_answers(run: Run) -> bool:
    """The log-probabilities of answers that are laid end to end, some thousand tokens at a time (trainers/stages/shared/texts.py)."""
    return compares_joined(run) and run.training.loss == "chunked" and stage_row(run.stage.name).loss is not Loss.SCORE


def too_few_at_once(run: Run) -> bool:
    """Only kto has a `least` above 1. A further such stage needs its own sentence here."""
    return run.training.micro_batch < stage_row(run.stage.name).least
