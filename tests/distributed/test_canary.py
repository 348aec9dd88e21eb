"""A canary of every stage on real ranks: made-up samples as long as the cutoff train, and their end decides."""

import json
from pathlib import Path
from typing import Any

import command_line as line
import pytest
from reward_models import save_reward_model

from conf.run_dir import load_run
from conf.stages import STAGES
from launcher.composition.compose import compose
from launcher.gate.judge import Judged, judge_run
from launcher.launch import canary
from launcher.launch.outcome import Outcome
from tests.waiting import wait_until
from trainers.verbs.make_up import prompt_tokens

pytestmark = pytest.mark.distributed

SMALL = ("model.architecture.hidden_size=32", "model.architecture.intermediate_size=64", "model.architecture.num_hidden_layers=1")
JOB = (
    *("model=demo", *SMALL, "data=demo", "data.template=chatml", "data.cutoff=64", "training.micro_batch=2", "training.effective_batch=4"),
    *("regime=full", "training.precision=fp32", "training.fit=off", "node=cpu", "gate.mode=enforce", "gate.floor=advisory", "gate.canary=true"),
    *("evaluation.interval=0", "checkpoint.interval=0", "cluster.ranks_per_node=2", "training.max_steps=1"),
)
OF_STAGE = {"ppo": ("stage.response_length=4", "stage.epochs=1"), "grpo": ("stage.response_length=4", "stage.generations=2")}
FAST, *OTHERS = sorted(set(STAGES) - {"dpo"}, key=lambda stage: (stage != "grpo", stage))


def overrides(stage: str, folder: Path) -> tuple[str, ...]:
    judge = (f"stage.reward_model={save_reward_model(folder / 'judge')}",) if stage == "ppo" else ()
    return (*JOB, f"stage={stage}", *OF_STAGE.get(stage, ()), *judge, f"output={folder}")


def close(given: tuple[str, ...]) -> tuple[str, ...]:
    """The same on a node whose host memory is what the job is predicted to need, without the margin."""
    return (*given, f"node.host_memory={judge_run(compose(given)).estimate.host}")


def test_the_command_line_lets_a_canary_of_two_ranks_decide_on_pairs(tmp_path: Path) -> None:
    given = close(overrides("dpo", tmp_path))
    done = line.call((*line.MODULE, "train", *given, "name=close", "sharding=zero2"), tmp_path)

    assert "may or may not fit: " in done.out
    assert "A canary of 2 steps decides." in done.out
    assert done.code == 0, done.text
    (plan,) = tmp_path.glob("close/*/plan.json")
    verdict = json.loads(plan.read_text())["verdict"]
    assert [(check["rule"], check["passed"]) for check in verdict["checks"] if check["rule"] == "CANARY"] == [("CANARY", True)]
    assert not list(tmp_path.glob(".canary-*"))


@pytest.mark.long
def test_a_run_of_the_queue_is_decided_by_a_canary_when_its_turn_comes(tmp_path: Path) -> None:
    given, state = close(overrides("dpo", tmp_path)), str(tmp_path / "state")
    added = line.call((*line.MODULE, "queue", "add", *given, "name=close"), tmp_path, XDG_STATE_HOME=state)
    assert added.code == 0, added.text
    assert "a canary decides when its turn comes" in " ".join(added.out.split())

    def listed() -> dict[str, Any]:
        (entry,) = json.loads(line.call((*line.MODULE, "queue", "--json"), tmp_path, XDG_STATE_HOME=state).out)
        found: dict[str, Any] = entry
        return found

    wait_until(lambda: listed()["state"] not in ("waiting", "running"), "the end of the run", pause=5.0)
    assert listed()["state"] == "finished"
    (plan,) = tmp_path.glob("close/*/plan.json")
    assert [check["passed"] for check in json.loads(plan.read_text())["verdict"]["checks"] if check["rule"] == "CANARY"] == [True]
    assert not list(tmp_path.glob(".canary-*"))


def check_canary(stage: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its verdict, and the number of steps, ranks and tokens of what it trained."""
    seen: dict[str, object] = {}

    def supervised(plan: canary.LaunchPlan) -> Outcome:
        outcome = run_it(plan)
        run, steps = load_run(plan.run_dir), [entry for entry in line.entries(plan.run_dir) if "loss" in entry]
        ranks = [json.loads(path.read_text())["world"] for path in plan.run_dir.layouts.glob("rank-*.json")]
        seen.update(run=run, steps=len(steps), ranks=ranks, samples=json.loads(Path(run.data.sets[0]).read_text()))
        return outcome

    run_it = canary.supervised
    monkeypatch.setattr(canary, "supervised", supervised)
    decided = judge_run(compose(close(overrides(stage, folder))))
    found: Judged = canary.after_canary(decided)

    assert found.verdict.permitted, found.verdict.checks[-1].sentence
    assert found.verdict.checks[-1].rule == "CANARY"
    assert seen["steps"] == canary.steps_of(decided.run)
    assert seen["ranks"] == [2, 2]
    assert not list(folder.glob(".canary-*"))
    if STAGES[stage].reads == "prompts":
        check_prompts(seen["run"], seen["samples"])


def check_prompts(run: canary.Run, samples: list[dict[str, str]]) -> None:
    """As long as the cutoff allows, by the tokenizer itself."""
    from trainers.model.tokenizer import load_tokenizer

    (words,) = {len(sample["instruction"].split()) for sample in samples}
    tokenizer = load_tokenizer(run)
    assert prompt_tokens(words, run.data, tokenizer) <= run.data.cutoff < prompt_tokens(words + 1, run.data, tokenizer)


def test_a_canary_writes_answers_to_prompts_as_long_as_the_cutoff(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_canary(FAST, tmp_path, monkeypatch)


@pytest.mark.long
@pytest.mark.parametrize("stage", OTHERS)
def test_a_canary_decides_in_every_other_stage(stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_canary(stage, tmp_path, monkeypatch)
