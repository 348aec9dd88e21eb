"""Pairs of a stage and another choice that cannot work."""

from conf.data_sets import evaluates
from conf.optimizers import optimizer_row
from conf.schema import Dpo, Lora, Run
from launcher.rules.rule import Rule

NEXT_TOKEN = ("pt", "sft")  # transformers' own trainer over input_ids and labels
COMPARING = ("rm", "dpo", "kto", "orpo", "simpo")  # TRL's trainers over given answers
ANSWERING = ("ppo", "grpo")  # the answers are the model's own

STAGE_RULES: tuple[Rule, ...] = (
    Rule(
        "packing-stage",
        lambda run: run.data.packing and run.stage.name not in NEXT_TOKEN,
        "A score or an answer's log-probability belongs to one row each: rows that several samples share would have one for all of them.",
        "data.packing=false",
    ),
    Rule(
        "loss-stage",
        lambda run: run.training.loss != "plain" and run.stage.name not in NEXT_TOKEN,
        "The chunked and the fused loss are next-token losses; this stage compares log-probabilities or scores.",
        "training.loss=plain",
    ),
    Rule(
        "neftune-stage",
        lambda run: run.training.neftune_alpha is not None and run.stage.name not in NEXT_TOKEN,
        "NEFTune draws new noise for every forward pass: what is compared would differ by it, and the reference would be noisy too.",
        "training.neftune_alpha=null",
    ),
    Rule(
        "dropout-stage",
        lambda run: isinstance(run.regime, Lora) and run.regime.dropout > 0 and run.stage.name in COMPARING,
        "TRL switches every dropout off in this stage, so that log-probabilities can be compared: the key would have no effect.",
        "regime.dropout=0",
    ),
    Rule(
        "dropout-ppo",
        lambda run: isinstance(run.regime, Lora) and run.regime.dropout > 0 and run.stage.name == "ppo",
        "An answer must be as likely when it is learned from as when it was written, so every dropout is off: the key would have no effect.",
        "regime.dropout=0",
    ),
    Rule(
        "unmasked-stage",
        lambda run: not run.data.mask_prompt and run.stage.name not in NEXT_TOKEN,
        "This stage compares answers; prompts are never learned in it (orpo learns those of chosen answers in any case).",
        "data.mask_prompt=true",
    ),
    Rule(
        "streaming-stage",
        lambda run: run.data.streaming and run.stage.name in (*COMPARING, *ANSWERING),
        "The trainers of this stage read rows by their number.",
        "data.streaming=false training.max_steps=null",
    ),
    Rule(
        "generate-rm",
        lambda run: run.evaluation.generate is not None and run.stage.name == "rm",
        "A reward model has a score for a head, and no words.",
        "evaluation.generate=null",
    ),
    Rule(
        "muon-head",
        lambda run: optimizer_row(run.optim.name).keeps == "matrix momentum" and run.stage.name in ("rm", "ppo"),
        "Muon makes matrices orthogonal, and the head for rewards or values is one row: only its direction would be learned.",
        "optim=adamw",
    ),
    Rule(
        "kto-alone",
        lambda run: run.stage.name == "kto" and alone(run),
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


def alone(run: Run) -> bool:
    return run.training.micro_batch == 1 or (evaluates(run.data) and run.evaluation.micro_batch == 1)
