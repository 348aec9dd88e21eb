"""Pairs of a stage and another choice that cannot work."""

from conf.data_sets import evaluates
from conf.optimizers import optimizer_row
from conf.schema import Dpo, Lora, Run
from conf.stages import Loss, stage_row
from launcher.rules.rule import Rule

STAGE_RULES: tuple[Rule, ...] = (
    Rule(
        "packing-stage",
        lambda run: run.data.packing and stage_row(run.stage.name).learns != "next token",
        "A score or an answer's log-probability belongs to one row each: rows that several samples share would have one for all of them.",
        "data.packing=false",
    ),
    Rule(
        "loss-stage",
        lambda run: run.training.loss != "plain" and stage_row(run.stage.name).learns != "next token",
        "The chunked and the fused loss are next-token losses; this stage compares log-probabilities or scores.",
        "training.loss=plain",
    ),
    Rule(
        "neftune-stage",
        lambda run: run.training.neftune_alpha is not None and stage_row(run.stage.name).learns != "next token",
        "NEFTune draws new noise for every forward pass: what is compared would differ by it, and the reference would be noisy too.",
        "training.neftune_alpha=null",
    ),
    Rule(
        "dropout-stage",
        lambda run: isinstance(run.regime, Lora) and run.regime.dropout > 0 and stage_row(run.stage.name).learns == "comparison",
        "TRL switches every dropout off in this stage, so that log-probabilities can be compared: the key would have no effect.",
        "regime.dropout=0",
    ),
    Rule(
        "dropout-ppo",
        lambda run: isinstance(run.regime, Lora) and run.regime.dropout > 0 and stage_row(run.stage.name).loss is Loss.PPO,
        "An answer must be as likely when it is learned from as when it was written, so every dropout is off: the key would have no effect.",
        "regime.dropout=0",
    ),
    Rule(
        "unmasked-stage",
        lambda run: not run.data.mask_prompt and stage_row(run.stage.name).learns != "next token",
        "This stage compares answers; prompts are never learned in it (orpo learns those of chosen answers in any case).",
        "data.mask_prompt=true",
    ),
    Rule(
        "streaming-stage",
        lambda run: run.data.streaming and stage_row(run.stage.name).learns != "next token",
        "The trainers of this stage read rows by their number.",
        "data.streaming=false training.max_steps=null",
    ),
    Rule(
        "generate-rm",
        lambda run: run.evaluation.generate is not None and stage_row(run.stage.name).loss is Loss.SCORE,
        "A reward model has a score for a head, and no words.",
        "evaluation.generate=null",
    ),
    Rule(
        "muon-head",
        lambda run: optimizer_row(run.optim.name).keeps == "matrix momentum" and stage_row(run.stage.name).new_head,
        "Muon makes matrices orthogonal, and the head for rewards or values is one row: only its direction would be learned.",
        "optim=adamw",
    ),
    Rule(
        "kto-alone",
        lambda run: too_few_at_once(run),
        "KTO estimates how far the policy has moved by giving each prompt its neighbour's answer, and a batch of one has no neighbour.",
        "training.micro_batch=2 evaluation.micro_batch=2",
    ),
    Rule(
        "smoothing-loss",
        lambda run: isinstance(run.stage, Dpo) and run.stage.label_smoothing > 0 and run.stage.loss not in ("sigmoid", "robust"),
        "The losses hinge and ipo have no label smoothing: the key would have no effect.",
        "stage.label_smoothing=0",
    ),
)


def too_few_at_once(run: Run) -> bool:
    """Of all stages kto alone has a `least` above 1: another one needs a sentence of its own here."""
    least = stage_row(run.stage.name).least
    return run.training.micro_batch < least or (evaluates(run.data) and run.evaluation.micro_batch < least)
