"""What an evaluation measures that checkpoints can be compared by."""

from conf.stages import stage_row

# Whether more of it is better; TRL's names, as they are logged.
HIGHER_IS_BETTER = {
    "eval_loss": False,
    "eval_accuracy": True,  # share of pairs whose chosen answer a reward model scores higher
    "eval_margin": True,
    "eval_rewards/accuracies": True,  # share of pairs whose chosen answer gained more
    "eval_rewards/margins": True,
    "eval_reward": True,
}


def metrics_of(stage: str) -> tuple[str, ...]:
    return ("eval_loss", *stage_row(stage).metrics)
