"""What an evaluation measures that checkpoints can be compared by."""

# Whether more of it is better; TRL's names, as they are logged.
HIGHER_IS_BETTER = {
    "eval_loss": False,
    "eval_accuracy": True,  # share of pairs whose chosen answer a reward model scores higher
    "eval_margin": True,
    "eval_rewards/accuracies": True,  # share of pairs whose chosen answer gained more
    "eval_rewards/margins": True,
    "eval_reward": True,
}
PAIRS = ("eval_rewards/accuracies", "eval_rewards/margins")
# Of a stage beside eval_loss.
OF_STAGE: dict[str, tuple[str, ...]] = {
    "rm": ("eval_accuracy", "eval_margin"),
    "dpo": PAIRS,
    "orpo": PAIRS,
    "simpo": PAIRS,
    "kto": ("eval_rewards/margins",),
    "grpo": ("eval_reward",),
}


def metrics_of(stage: str) -> tuple[str, ...]:
    return ("eval_loss", *OF_STAGE.get(stage, ()))
