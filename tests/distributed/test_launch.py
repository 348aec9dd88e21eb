"""A run from the command line to its end: what is planned is what runs; stopped, killed, resumed, detached."""

import json
import os
import signal
import socket
from itertools import product
from pathlib import Path
from typing import Any

import command_line as line
import pytest
from cells import TINY

from conf import journal
from conf.processes import SUPERVISOR

pytestmark = pytest.mark.distributed

STEPS = 150  # a few seconds of work: time enough to look at the ranks and to stop them
RUN = ("recipe=demo", *TINY, f"training.max_steps={STEPS}", "checkpoint.interval=0", "regime.dropout=0.1", "sharding=ddp")
SITE = {f"{family}_X": f"kept for {family}" for family in ("NCCL", "NVSHMEM", "TORCH", "CUDA", "UCX", "LD")}
SECRETS = {"GITHUB_TOKEN": "not-for-any-rank", "WANDB_API_KEY": "not-for-this-run"}


def train(*overrides: str) -> tuple[str, ...]:
    return (*line.MODULE, "train", *overrides)


def weights(run_dir: Any) -> bytes:
    return (run_dir.model / "adapter_model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One run that nobody interrupts, looked at while its ranks are alive; its working folder shadows our packages."""
    folder = line.shadowed(tmp_path_factory.mktemp("reference"))
    planned = line.call((*line.SCRIPT, "plan", "--json", *RUN), folder, **SITE, **SECRETS)
    with line.start((*line.SCRIPT, "train", *RUN), folder, **SITE, **SECRETS) as started:
        run_dir = started.the_run(folder / "outputs")
        started.wait_until(line.reached(run_dir, 1), "first step")
        seen = {"launcher": line.read_process(started.process.pid), "agents": line.agents_of(run_dir), "ranks": line.ranks_of(run_dir)}
        ended = started.end()
    return {"planned": planned, "run_dir": run_dir, "ended": ended, **seen}


def check_planned(planned: Any, run_dir: Any, launcher: Any, agents: list[Any], ranks: list[Any]) -> None:
    """The processes that live are those of the plan, variable by variable."""
    plan = json.loads(planned.out.replace(json.loads(planned.out)["run_folder"], str(run_dir.path)))
    assert [agent.argv for agent in agents] == [tuple(plan["argv"])]
    expected = {**launcher.environment, **{name: value for name, value in plan["environment"].items() if value is not None}}
    withheld = {name for name, value in plan["environment"].items() if value is None}
    assert withheld == set(SECRETS)
    supervisor = agents[0].environment[SUPERVISOR]
    assert supervisor.startswith(f"{launcher.pid}:")  # whose they are
    assert [rank.environment[SUPERVISOR] for rank in ranks] == [supervisor] * 2
    assert agents[0].environment == {**{name: value for name, value in expected.items() if name not in withheld}, SUPERVISOR: supervisor}
    assert sorted(rank.environment["RANK"] for rank in ranks) == ["0", "1"]
    for rank in ranks:
        assert rank.argv[-3:] == ("-m", "trainers", str(run_dir.path))
        assert {name: rank.environment.get(name) for name in SITE} == SITE
        assert {name: rank.environment.get(name) for name in plan["environment"]} == plan["environment"]


def test_what_plan_prints_is_what_torchrun_runs(reference: dict[str, Any]) -> None:
    assert reference["planned"].code == 0, reference["planned"].text
    check_planned(*(reference[name] for name in ("planned", "run_dir", "launcher", "agents", "ranks")))


def test_a_run_in_a_folder_with_packages_of_the_same_names_uses_ours(reference: dict[str, Any]) -> None:
    assert reference["ended"].code == 0, reference["ended"].text
    assert "of the working folder was imported" not in reference["planned"].text + reference["ended"].text
    assert max(line.losses(reference["run_dir"])) == STEPS
    assert reference["run_dir"].loss_plot.is_file()
    assert [json.loads(path.read_text())["world"] for path in sorted(reference["run_dir"].layouts.glob("*.json"))] == [2, 2]


def test_no_process_is_left_by_a_finished_run(reference: dict[str, Any]) -> None:
    assert reference["ended"].code == 0
    assert line.processes_of(reference["run_dir"]) == []


def test_what_a_run_leaves_is_for_its_user_alone(reference: dict[str, Any]) -> None:
    output = reference["run_dir"].path.parents[1]
    written = [output, *output.rglob("*")]
    assert any(path.name == "manifest.json" for path in written)  # of a checkpoint and of the cache
    assert [path for path in written if path.lstat().st_mode & 0o077 and not path.is_symlink()] == []
    assert [path for path in written if path.name == "training_args.bin"] == []


@pytest.fixture(scope="module")
def agent_killed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The run of `reference` by accelerate, whose agent is killed after the first checkpoint."""
    folder = tmp_path_factory.mktemp("agent")
    overrides = (*RUN, "backend=accelerate", "checkpoint.interval=20")
    planned = line.call((*line.MODULE, "plan", "--json", *overrides), folder, **SITE, **SECRETS)
    with line.start(train(*overrides), folder, **SITE, **SECRETS) as started:
        run_dir = started.the_run(folder / "outputs")
        started.wait_until(lambda: list(run_dir.checkpoints.glob("step-*")), "first checkpoint")
        launcher, agents, ranks = line.read_process(started.process.pid), line.agents_of(run_dir), line.ranks_of(run_dir)
        os.kill(agents[0].pid, signal.SIGKILL)
        ended = started.end()
    seen = {"planned": planned, "launcher": launcher, "agents": agents, "ranks": ranks}
    return {"folder": folder, "run_dir": run_dir, "ended": ended, **seen}


def test_what_plan_prints_is_what_accelerate_runs(agent_killed: dict[str, Any]) -> None:
    check_planned(*(agent_killed[name] for name in ("planned", "run_dir", "launcher", "agents", "ranks")))


def test_a_killed_agent_is_reported_and_leaves_no_process(agent_killed: dict[str, Any]) -> None:
    ended = agent_killed["ended"]
    assert ended.code == 6
    assert "SIGKILL" in ended.err
    assert ended.err.count("regimen: ") == 1
    assert "Traceback" not in ended.text
    line.wait_until(lambda: line.processes_of(agent_killed["run_dir"]) == [], "end of every rank")
    assert json.loads(line.call((*line.MODULE, "status", "--json"), agent_killed["folder"]).out)[0]["state"] == "failed"


@pytest.mark.long  # a resume of accelerate's run: tests/slurm/test_train.py; of a killed run: `interrupted`, below
def test_a_run_whose_agent_was_killed_goes_on(agent_killed: dict[str, Any], reference: dict[str, Any]) -> None:
    check_goes_on_as(reference["run_dir"], agent_killed["run_dir"], agent_killed["folder"])


def check_goes_on_as(whole: Any, run_dir: Any, folder: Path) -> None:
    """A resume from the newest checkpoint comes to the same numbers as the run that nobody interrupted."""
    resumed = line.call(train(f"resume={run_dir.path}"), folder)
    assert resumed.code == 0, resumed.text
    check_went_on_as(whole, run_dir)


def check_went_on_as(whole: Any, run_dir: Any) -> None:
    assert [entry["step"] for entry in line.entries(run_dir)].count(0) == 1  # it did not begin anew
    assert line.losses(run_dir) == line.losses(whole)
    assert weights(run_dir) == weights(whole)


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The run of `reference`: its launcher is killed; gone on, it is stopped by Ctrl-C; gone on again, it loses a rank, and comes to its end."""
    folder = tmp_path_factory.mktemp("interrupted")
    with line.start(train(*RUN, "checkpoint.interval=20", "backend.max_restarts=1"), folder) as started:
        run_dir = started.the_run(folder / "outputs")
        started.wait_until(lambda: list(run_dir.checkpoints.glob("step-*")), "first checkpoint")
        started.process.kill()
        line.wait_until(lambda: line.processes_of(run_dir) == [], "end of every process")
    killed = json.loads(line.call((*line.MODULE, "status", "--json"), folder).out)[0]
    with line.start(train(f"resume={run_dir.path}"), folder) as started:
        started.wait_until(line.reached(run_dir, asked := max(line.losses(run_dir)) + 3), "third step after the resume")
        started.process.send_signal(signal.SIGINT)
        stopped = started.end()
    agent_log = (run_dir.logs / "agent.txt").read_text()
    seen = {"killed": killed, "asked": asked, "stopped": stopped, "stopped_at": max(line.losses(run_dir)), "at_stop": newest_step(run_dir)}
    refused = line.call(train("resume=last", "optim.lr=0.5"), folder)
    with line.start(train("resume=last"), folder) as started:
        started.wait_until(line.reached(run_dir, seen["stopped_at"] + 1), "first step after the second resume")
        below = [process for pid in line.descendants(started.process.pid) if (process := line.read_process(pid)) is not None]
        os.kill(next(process.pid for process in below if process.environment.get("RANK") == "0"), signal.SIGKILL)
        resumed = started.end()
    return {"run_dir": run_dir, "folder": folder, "refused": refused, "resumed": resumed, "agent_log": agent_log, **seen}


def newest_step(run_dir: Any) -> int:
    return max(int(path.name.removeprefix("step-")) for path in run_dir.checkpoints.glob("step-*"))


def test_a_killed_launcher_leaves_no_process_and_its_run_is_told_as_dead(interrupted: dict[str, Any]) -> None:
    assert interrupted["killed"]["state"] == "dead"


def test_ctrl_c_saves_a_checkpoint_and_ends_with_75(interrupted: dict[str, Any]) -> None:
    stopped = interrupted["stopped"]
    assert stopped.code == 75, stopped.text
    assert [text for text in stopped.err.splitlines() if text] == [
        f"regimen: stopped and saved. Go on with: regimen train resume={interrupted['run_dir'].path}"
    ]
    assert interrupted["at_stop"] == interrupted["stopped_at"]
    assert interrupted["asked"] <= interrupted["at_stop"] < STEPS


def test_a_normal_stop_is_no_failure_of_the_agent(interrupted: dict[str, Any]) -> None:
    assert "Traceback" not in interrupted["agent_log"]
    assert "FAILED" not in interrupted["agent_log"]


def test_a_killed_rank_is_started_again_where_restarts_are_allowed(interrupted: dict[str, Any]) -> None:
    assert interrupted["resumed"].code == 0, interrupted["resumed"].text
    assert "Starting again from the newest checkpoint (backend.max_restarts)." in interrupted["resumed"].out
    events = [event["event"] for event in journal.events(interrupted["run_dir"])]
    assert [event for event in events if event in ("start", "failure", "end")] == ["start", "start", "end", "start", "failure", "start", "end"]


def test_a_run_that_went_on_has_the_losses_and_weights_of_an_uninterrupted_one(interrupted: dict[str, Any], reference: dict[str, Any]) -> None:
    assert sorted(line.losses(reference["run_dir"])) == list(range(1, STEPS + 1))
    check_went_on_as(reference["run_dir"], interrupted["run_dir"])


def test_a_resume_with_another_value_is_refused_naming_both(interrupted: dict[str, Any]) -> None:
    refused = interrupted["refused"]
    assert refused.code == 2
    assert "optim.lr: recorded 0.01, given 0.5" in refused.err
    assert "Traceback" not in refused.text


def test_a_second_resume_says_that_the_run_is_finished(interrupted: dict[str, Any]) -> None:
    again = line.call(train(f"resume={interrupted['run_dir'].path}"), interrupted["folder"])
    assert again.code == 0, again.text
    assert "is finished" in again.out
    assert len(line.run_folders(interrupted["folder"] / "outputs")) == 1


def test_a_detached_run_is_followed_guarded_and_stopped(tmp_path: Path) -> None:
    started = line.call((*line.SCRIPT, "train", "--detach", *RUN, "training.max_steps=2000"), line.shadowed(tmp_path))
    assert started.code == 0, started.text
    run_dir = line.the_run(tmp_path / "outputs")
    line.wait_until(line.reached(run_dir, 1), "first step")
    assert len(line.ranks_of(run_dir)) == 2  # train has returned and they live
    owner = json.loads(run_dir.lock.read_text())
    with line.start((*line.SCRIPT, "status", "--follow", "last"), tmp_path) as follower:
        second = line.call((*line.SCRIPT, "train", f"resume={run_dir.path}"), tmp_path)
        listed = json.loads(line.call((*line.SCRIPT, "status", "--json"), tmp_path).out)
        stop = line.call((*line.SCRIPT, "stop", "last"), tmp_path)
        followed = follower.end()
    assert second.code == 73
    assert f"in use by process {owner['pid']} on {socket.gethostname()}, which has held it for " in second.err
    assert [(entry["run_folder"], entry["state"]) for entry in listed] == [(str(run_dir.path), "running")]
    assert stop.code == 0, stop.text
    assert followed.code == 75, followed.text
    assert "step 0/2000: evaluation loss" in followed.out
    assert "Traceback" not in second.text + followed.text
    line.wait_until(lambda: not run_dir.lock.exists() and line.processes_of(run_dir) == [], "end of every process")


# Full fine-tuning of 7 billion weights in bf16 AMP takes 16 bytes a weight beside activations: no GPU of 24 GiB holds that.
TOO_LARGE = ("model=qwen2.5_7b", "data=demo", "regime=full", "node=rtx4090_24")


def test_a_refused_run_names_both_numbers_and_leaves_nothing(tmp_path: Path) -> None:
    refused = line.call(train(*TOO_LARGE), tmp_path)
    assert refused.code == 3
    assert refused.err.count("regimen: This run does not fit its node.") == 1
    assert list(tmp_path.iterdir()) == []
    failed = [text for text in refused.err.splitlines() if "FAIL" in text]
    assert failed
    assert all(len([word for word in text.split() if word in ("GiB", "GB")]) >= 2 for text in failed), failed
    _, proposals = refused.out.split("what would fit, cheapest first")
    cheapest, costs, *_ = proposals.splitlines()[1:]
    assert costs.startswith("      peak ")
    pasted = cheapest.split()
    permitted = line.call((*line.MODULE, "plan", *TOO_LARGE, *pasted), tmp_path)
    assert permitted.code == 0, permitted.text


def test_the_demo_learns_and_its_adapter_loads_on_its_base(tmp_path: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    ended = line.call(train("recipe=demo", "node=cpu", "cluster.ranks_per_node=2", "evaluation.interval=150"), tmp_path)
    assert ended.code == 0, ended.text
    assert "right answers to held-out questions: 0 of 50 before training, 50 of 50 after training\n" in ended.out
    run_dir = line.the_run(tmp_path / "outputs")
    evaluations = [entry["eval_loss"] for entry in line.entries(run_dir) if "eval_loss" in entry]
    assert len(evaluations) == 3
    assert evaluations == sorted(evaluations, reverse=True)
    assert run_dir.loss_plot.read_bytes().startswith(b"\x89PNG")
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(run_dir.base), run_dir.model).eval()
    tokenizer = AutoTokenizer.from_pretrained(run_dir.model)
    for a, b in product(range(1, 6), repeat=2):  # plain transformers answers every sum that the demo is about
        asked = [{"role": "user", "content": f"What is {a} + {b}?"}]
        prompt = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        written = model.generate(**prompt, max_new_tokens=20, do_sample=False)[0, prompt["input_ids"].shape[1] :]
        assert tokenizer.decode(written) == f"{a} + {b} = {a + b}.<|im_end|>"
    tokens = torch.tensor([[66, 67, 68, 69]])
    with torch.no_grad(), model.disable_adapter():
        plain = model(tokens).logits
    with torch.no_grad():
        learned = model(tokens).logits
        merged = model.merge_and_unload()(tokens).logits
    assert not torch.allclose(plain, learned, atol=1e-2)
    assert torch.allclose(learned, merged, atol=1e-3)  # W + BA rounds once in fp32 where W x + B A x rounds twice
