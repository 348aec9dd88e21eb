"""Evaluations under every sharding, number of ranks and micro-batch, and the same numbers by a plain loop over single samples in fp64.

Used by test_evaluation.py here and by tests/gpu/test_evaluation.py; the ranks run run_evaluations.py.
"""

import json
import math
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
from datasets import Dataset
from reward_models import save_reward_model
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, LlamaConfig, LlamaForCausalLM, PreTrainedModel, set_seed

from conf.run_dir import RunDir, save_run
from conf.schema import Run
from launcher.composition.compose import compose
from launcher.facts.node import settle_node
from launcher.gate.settle import settled
from launcher.launch.backends import command
from launcher.rules.pairs import incompatibilities
from launcher.rules.ranges import check_values
from trainers.data.rows.packing import pack_lengths, packed_row
from trainers.model.tokenizer import byte_tokenizer

SCRIPT, FSDP_ON_CPU = (Path(__file__).with_name(name) for name in ("run_evaluations.py", "run_fsdp_evaluations.py"))
SIZES = (1, 2, 3, 4, 5)  # of evaluation.micro_batch
SAMPLES = 7  # neither two nor three ranks, nor batches of 2 to 5, share them evenly
END, MASKED, CUTOFF = 259, -100, 64
BETA, GOOD, BAD, MARGIN = 0.3, 1.5, 0.6, 0.4
PACKED = ("data.packing=true",)
TINY = (
    *("model=local", "data=demo", f"data.cutoff={CUTOFF}", "regime=full", "training.precision=fp32", "training.gradient_checkpointing=false"),
    *("training.micro_batch=4", "training.max_steps=2", "optim.lr=3e-3", "optim.warmup=0"),
    *("evaluation.interval=0", "checkpoint.interval=0", "evaluation.generate=null"),
)
SETTINGS = {
    "dpo": (f"stage.beta={BETA}", "stage.sft_weight=0.3"),
    "simpo": (f"stage.beta={BETA}", f"stage.margin={MARGIN}", "stage.sft_weight=0.3"),
    "orpo": (f"stage.beta={BETA}",),
    "kto": (f"stage.beta={BETA}", f"stage.desirable_weight={GOOD}", f"stage.undesirable_weight={BAD}"),
    "ppo": ("stage.response_length=6", "stage.epochs=1"),
    "grpo": (
        "stage.response_length=6",
        "stage.generations=2",
        "stage.rewards=['evaluation_rewards:own_number']",
        "stage.reward_packages=[evaluation_rewards]",
    ),
}


@dataclass(frozen=True)
class Cell:
    stage: str
    sharding: str
    ranks: int
    further: tuple[str, ...] = ()
    node: str = "cpu"

    @property
    def name(self) -> str:
        return "-".join((self.stage, self.sharding, str(self.ranks), *(part.replace("=", "_").replace("/", "_") for part in self.further)))

    def run(self, root: Path) -> Run:
        places = (f"node={self.node}", f"cluster.ranks_per_node={self.ranks}", f"sharding={self.sharding}", f"model.path={root / 'start'}")
        judge = (f"stage.reward_model={root / 'judge'}",) if self.stage == "ppo" else ()
        run = compose([*TINY, *places, f"stage={self.stage}", *SETTINGS.get(self.stage, ()), *judge, *self.further])
        check_values(run)
        return settled(run, settle_node(run.node, 1).node)


def save_start(root: Path) -> None:
    """The model that every cell begins with, and the judge of its answers."""
    set_seed(0)
    config = LlamaConfig(
        vocab_size=264, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=128, initializer_range=0.3, pad_token_id=byte_tokenizer().pad_token_id, eos_token_id=END,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(root / "start")
    byte_tokenizer().save_pretrained(root / "start")
    save_reward_model(root / "judge")


def rows_of(stage: str, count: int, seed: int) -> list[dict[str, Any]]:
    """Samples of very different lengths."""
    draw = random.Random(seed)
    letters = partial(draw.choices, range(97, 123))
    rows: list[dict[str, Any]] = []
    for number in range(count):
        prompt = letters(k=draw.randrange(2, 12))
        chosen, rejected = ([*letters(k=draw.choice((1, 2, 5, 20, 30))), END] for _ in range(2))
        rows.append(
            {
                "pt": {"input_ids": prompt + chosen, "labels": [MASKED, *prompt[1:], *chosen]},
                "sft": {"input_ids": prompt + chosen, "labels": [MASKED] * len(prompt) + chosen},
                "kto": {"prompt_ids": prompt, "completion_ids": chosen, "label": number % 3 != 1},
                "ppo": {"prompt_ids": prompt, "prompt": "", "answer": str(number)},
                "grpo": {"prompt_ids": prompt, "prompt": "", "answer": str(number)},
            }.get(stage, {"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected})
        )
    return rows


def packed(rows: Sequence[dict[str, Any]]) -> list[Any]:
    """As the data is packed where no row is cut."""
    return [
        packed_row([(rows[index]["input_ids"], rows[index]["labels"]) for index in those])
        for those in pack_lengths(list(map(length_of, rows)), CUTOFF)
    ]


def length_of(row: dict[str, Any]) -> int:
    return len(row["input_ids"])


def allowed(cells: Sequence[Cell], root: Path) -> list[Cell]:
    """Without those that are refused."""
    return [cell for cell in cells if not incompatibilities(cell.run(root))]


def evaluate_cells(cells: Sequence[Cell], root: Path, script: Path = SCRIPT) -> dict[Cell, list[dict[str, dict[str, float]]]]:
    """What each rank found of each cell, by micro-batch; all cells in one group of ranks."""
    folders = []
    for cell in cells:
        run_dir = RunDir(root / cell.name)
        run_dir.path.mkdir()
        save_run(cell.run(root), run_dir)
        for name, count, seed in (("train", 24, 1), ("evaluation", SAMPLES, 2)):
            rows = rows_of(cell.stage, count, seed)
            Dataset.from_list(packed(rows) if "data.packing=true" in cell.further else rows).save_to_disk(run_dir.path / name)
        folders.append(run_dir.path)
    beside = RunDir(root / f"first-{cells[0].name}")
    beside.path.mkdir()
    started = command(cells[0].run(root), beside)
    argv = (*started.argv[: started.argv.index("trainers") - 1], str(script), *map(str, folders))
    environment = started.environment(os.environ)
    paths = (str(SCRIPT.parent), *filter(None, [environment.get("PYTHONPATH")]))
    done = subprocess.run(argv, env={**environment, "PYTHONPATH": os.pathsep.join(paths)}, capture_output=True, text=True, check=False, cwd=root)
    if done.returncode != 0:
        print(done.stdout[-3000:], done.stderr[-5000:], file=sys.stderr)
    assert done.returncode == 0
    return {cell: [json.loads((root / cell.name / f"found-{rank}.json").read_text()) for rank in range(cell.ranks)] for cell in cells}


def assert_plain(cell: Cell, ranks: list[dict[str, dict[str, float]]], root: Path, error: float = 1e-6) -> None:
    """The loss within `error`; other measures within ten times that.

    A reward or log-probability is summed over up to 31 tokens, each of which fp32 rounds by up to 5e-7. The loss of ppo is such a measure too:
    a mean of scores of both signs, which nearly cancel.
    """
    by_hand = expected(cell, root)
    for found in ranks:
        for size in SIZES:
            measured = {name: found[str(size)][name] for name in by_hand}
            assert measured == pytest.approx(by_hand, rel=error, abs=10 * error), (cell.name, size)
            if cell.stage != "ppo":
                assert measured["eval_loss"] == pytest.approx(by_hand["eval_loss"], rel=error, abs=error), (cell.name, size)


def expected(cell: Cell, root: Path) -> dict[str, float]:
    """By a plain loop over the samples, one at a time, in fp64."""
    model_class = AutoModelForSequenceClassification if cell.stage == "rm" else AutoModelForCausalLM
    model, start = (
        (model_class.from_pretrained(folder, dtype=torch.float64).eval() if folder else None)
        for folder in (root / cell.name / "model", root / "start" if cell.stage in ("dpo", "kto") else None)
    )
    rows = rows_of(cell.stage, SAMPLES, 2)
    with torch.no_grad():
        return {
            "pt": next_token, "sft": next_token, "rm": scored, "dpo": preferred, "kto": labelled, "orpo": odds, "simpo": likelier,
            "ppo": partial(judged, judge=root / "judge"), "grpo": numbered,
        }[cell.stage](model, start, rows)  # fmt: skip


def token_logps(model: PreTrainedModel, tokens: list[int], learned: list[bool]) -> Tensor:
    logs = model(input_ids=torch.tensor([tokens])).logits[0].log_softmax(-1)
    return torch.stack([logs[place - 1, tokens[place]] for place in range(1, len(tokens)) if learned[place]])


def answer_logps(model: PreTrainedModel, prompt: list[int], answer: list[int]) -> Tensor:
    return token_logps(model, prompt + answer, [False] * len(prompt) + [True] * len(answer))


def text_logps(model: PreTrainedModel, tokens: list[int]) -> Tensor:
    return token_logps(model, tokens, [True] * len(tokens))


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def next_token(model: PreTrainedModel, _: Any, rows: list[dict[str, Any]]) -> dict[str, float]:
    logps = torch.cat([token_logps(model, row["input_ids"], [label != MASKED for label in row["labels"]]) for row in rows])
    return {"eval_loss": -logps.mean().item()}


def of_pairs(pairs: list[tuple[float, float]]) -> dict[str, float]:
    return {
        "eval_reward_chosen": fmean(chosen for chosen, _ in pairs),
        "eval_reward_rejected": fmean(rejected for _, rejected in pairs),
        "eval_reward_margin": fmean(chosen - rejected for chosen, rejected in pairs),
        "eval_reward_accuracy": fmean(chosen > rejected for chosen, rejected in pairs),
    }


def scored(model: PreTrainedModel, _: Any, rows: list[dict[str, Any]]) -> dict[str, float]:
    sides = [
        [model(input_ids=torch.tensor([row["prompt_ids"] + row[side]])).logits.item() for side in ("chosen_ids", "rejected_ids")] for row in rows
    ]
    found = of_pairs([(chosen, rejected) for chosen, rejected in sides])
    return {
        "eval_loss": fmean(-math.log(sigmoid(chosen - rejected)) for chosen, rejected in sides),
        "eval_reward": fmean(score for pair in sides for score in pair),
        **{name: found[name] for name in ("eval_reward_margin", "eval_reward_accuracy")},
    }


def preferred(model: PreTrainedModel, start: PreTrainedModel, rows: list[dict[str, Any]]) -> dict[str, float]:
    def moved(row: dict[str, Any], side: str) -> float:
        return (answer_logps(model, row["prompt_ids"], row[side]).sum() - answer_logps(start, row["prompt_ids"], row[side]).sum()).item()

    pairs = [(BETA * moved(row, "chosen_ids"), BETA * moved(row, "rejected_ids")) for row in rows]
    tokens = torch.cat([answer_logps(model, row["prompt_ids"], row["chosen_ids"]) for row in rows])
    preference = fmean(-math.log(sigmoid(chosen - rejected)) for chosen, rejected in pairs)
    return {"eval_loss": preference - 0.3 * tokens.mean().item(), "eval_nll_loss": -tokens.mean().item(), **of_pairs(pairs)}


def mean_logps(model: PreTrainedModel, rows: list[dict[str, Any]]) -> list[tuple[float, float]]:
    return [
        (
            answer_logps(model, row["prompt_ids"], row["chosen_ids"]).mean().item(),
            answer_logps(model, row["prompt_ids"], row["rejected_ids"]).mean().item(),
        )
        for row in rows
    ]


def likelier(model: PreTrainedModel, _: Any, rows: list[dict[str, Any]]) -> dict[str, float]:
    pairs = mean_logps(model, rows)
    tokens = torch.cat([answer_logps(model, row["prompt_ids"], row["chosen_ids"]) for row in rows])
    preference = fmean(-math.log(sigmoid(BETA * (chosen - rejected) - MARGIN)) for chosen, rejected in pairs)
    found = of_pairs([(BETA * chosen, BETA * rejected) for chosen, rejected in pairs])
    return {"eval_loss": preference - 0.3 * tokens.mean().item(), "eval_nll_loss": -tokens.mean().item(), **found}


def odds(model: PreTrainedModel, _: Any, rows: list[dict[str, Any]]) -> dict[str, float]:
    """The next-token loss is over the whole chosen text, prompt included."""
    pairs = mean_logps(model, rows)
    texts = torch.cat([text_logps(model, row["prompt_ids"] + row["chosen_ids"]) for row in rows])
    leads = [(chosen - math.log1p(-math.exp(chosen))) - (rejected - math.log1p(-math.exp(rejected))) for chosen, rejected in pairs]
    preference = fmean(-math.log(sigmoid(lead)) for lead in leads)
    found = of_pairs([(BETA * chosen, BETA * rejected) for chosen, rejected in pairs])
    return {
        "eval_loss": BETA * preference - texts.mean().item(),
        "eval_nll_loss": -texts.mean().item(),
        "eval_log_odds": fmean(leads),
        "eval_logp_chosen": fmean(chosen for chosen, _ in pairs),
        **found,
    }


def labelled(model: PreTrainedModel, start: PreTrainedModel, rows: list[dict[str, Any]]) -> dict[str, float]:
    def moved(prompt: list[int], answer: list[int]) -> float:
        return (answer_logps(model, prompt, answer).sum() - answer_logps(start, prompt, answer).sum()).item()

    kl = max(0.0, fmean(moved(row["prompt_ids"], rows[index - 1]["completion_ids"]) for index, row in enumerate(rows)))
    ratios = [moved(row["prompt_ids"], row["completion_ids"]) for row in rows]
    losses = [
        GOOD * (1 - sigmoid(BETA * (ratio - kl))) if row["label"] else BAD * (1 - sigmoid(BETA * (kl - ratio)))
        for row, ratio in zip(rows, ratios, strict=True)
    ]
    good, bad = (fmean(BETA * ratio for row, ratio in zip(rows, ratios, strict=True) if row["label"] == label) for label in (True, False))
    return {"eval_loss": fmean(losses), "eval_kl": kl, "eval_reward_chosen": good, "eval_reward_rejected": bad, "eval_reward_margin": good - bad}


def judged(model: PreTrainedModel, _: Any, rows: list[dict[str, Any]], judge: Path) -> dict[str, float]:
    """The likeliest token after the other, up to six or the end."""
    classifier = AutoModelForSequenceClassification.from_pretrained(judge, dtype=torch.float64).eval()
    scores = []
    for row in rows:
        tokens = list(row["prompt_ids"])
        while len(tokens) < len(row["prompt_ids"]) + 6 and (len(tokens) == len(row["prompt_ids"]) or tokens[-1] != END):
            tokens.append(int(model(input_ids=torch.tensor([tokens])).logits[0, -1].argmax()))
        scores.append(classifier(input_ids=torch.tensor([tokens])).logits.item())
    return {"eval_loss": -fmean(scores), "eval_reward": fmean(scores)}


def numbered(model: PreTrainedModel, _: Any, rows: list[dict[str, Any]]) -> dict[str, float]:
    """The reward is the number of the prompt, whatever was answered."""
    reward = fmean(range(len(rows)))
    return {"eval_loss": -reward, "eval_reward": reward}
