"""What an evaluation measures that checkpoints can be compared by, and how people read it."""

from dataclasses import dataclass

from conf.stages import Kind, stage_row

# Whether more of it is better.
HIGHER_IS_BETTER = {
    "eval_loss": False,
    "eval_reward_accuracy": True,  # share of pairs whose chosen answer has the higher reward
    "eval_reward_margin": True,
    "eval_reward": True,
}
# What runs before 2026-12 and TRL call them.
FORMER_NAMES = {
    "eval_accuracy": "eval_reward_accuracy",
    "eval_margin": "eval_reward_margin",
    "eval_rewards/accuracies": "eval_reward_accuracy",
    "eval_rewards/margins": "eval_reward_margin",
}


def metrics_of(stage: str) -> tuple[str, ...]:
    return ("eval_loss", *stage_row(stage).metrics)


@dataclass(frozen=True)
class Shown:
    """How people read a value of progress.jsonl."""

    words: str
    form: str

    def text(self, value: float) -> str:
        return f"{self.words} {self.form.format(value)}"

    def change(self, first: float, last: float) -> str:
        return f"{self.text(first)} -> {self.form.format(last)}"


SHOWN = {
    "loss": Shown("loss", "{:.4f}"),
    "reward": Shown("reward", "{:.3f}"),
    "kl": Shown("KL", "{:.4f}"),
    "reward_accuracy": Shown("accuracy", "{:.1%}"),
    "reward_margin": Shown("margin", "{:.3f}"),
}


# What a stage is about beside its loss follows from what its rows are; the names of progress.jsonl, the most important first.
ABOUT: dict[Kind, tuple[str, ...]] = {
    "text": (),
    "answers": (),
    "pairs": ("reward_accuracy", "reward_margin"),
    "labelled": ("reward_margin",),
    "prompts": ("reward", "kl"),
}


def shown_of(stage: str) -> tuple[str, ...]:
    """What is shown of a run of this stage."""
    return (*ABOUT[stage_row(stage).reads], "loss")
