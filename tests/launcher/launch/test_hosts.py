"""cluster=hosts: what is started on each machine, what of the site reaches it, and when the machines cannot go on."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from conf.exit_codes import CONFIG, LOST_PEER, RANKS_FAILED, SAVED, SUBMISSION
from conf.run_dir import RunDir, save_run
from conf.schema import Run
from conf.signs import TRAINING, Sign, as_record
from launcher.cli import main
from launcher.errors import ConfigError, Unsafe
from launcher.gate.judge import judge_run
from launcher.launch.hang_report import Watcher, report
from launcher.launch.host_agents import Seen, cause, failed
from launcher.launch.hosts import SSH, shares
from launcher.launch.outcome import outcome_of
from launcher.launch.plan import plan_for
from tests.described import composed, described

RUN_DIR = RunDir(Path("/shared/a b/1"))
WORDS = ("model=demo", "data=demo", "node=cpu", "cluster=hosts", 'cluster.hosts=["node[01-02]"]', "cluster.ranks_per_node=2")


def on_hosts(*words: str) -> Run:
    return described(*WORDS, *words)


def test_each_machine_gets_its_share_as_words_that_its_shell_reads_back() -> None:
    first, second = shares(on_hosts("backend.port=4711"), RUN_DIR, {"PYTHONPATH": ""}, "/work/it's here")
    assert second.connected[: len(SSH)] == SSH
    assert second.connected[len(SSH) : -1] == ("--", "node02")
    assert tuple(shlex.split(second.connected[-1])) == second.argv
    assert second.argv[second.argv.index("-m") :] == ("-m", "launcher", "host", "/shared/a b/1", "1", "--folder", "/work/it's here", "--attached")
    assert first.ranks == (
        *(sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=2", "--node-rank=0", "--master-addr=node01"),
        *("--master-port=4711", "--max-restarts=0", "-m", "trainers", "/shared/a b/1"),
    )


def test_a_shell_runs_the_words_and_nothing_of_what_stands_in_them(tmp_path: Path) -> None:
    hostile = f"eth0;touch {tmp_path}/x $(touch {tmp_path}/x) `touch {tmp_path}/x` ' \" \\"
    [share, _] = shares(on_hosts(), RUN_DIR, {"NCCL_SOCKET_IFNAME": hostile}, "/$(touch x)")
    end = share.argv.index(sys.executable)
    printed = subprocess.run(
        ("sh", "-c", shlex.join((*share.argv[:end], "printenv", "NCCL_SOCKET_IFNAME"))), capture_output=True, text=True, check=True
    ).stdout
    assert printed == f"{hostile}\n"
    assert not (tmp_path / "x").exists()


def test_a_value_that_looks_like_a_secret_stands_in_no_command() -> None:
    with pytest.raises(Unsafe, match="The value of STORE_URL looks like a password in a URL") as refused:
        shares(on_hosts("cluster.export=[STORE_URL]"), RUN_DIR, {"STORE_URL": "s3://me:hunter22@store"}, "/")
    assert "hunter22" not in str(refused.value)


def test_a_control_character_reaches_no_other_machine() -> None:
    with pytest.raises(Unsafe, match="control character"):
        shares(on_hosts(), RUN_DIR, {"NCCL_DEBUG": "INFO\ntouch x"}, "/")


def test_variables_of_the_network_and_the_named_ones_reach_every_machine() -> None:
    site = {"NCCL_SOCKET_IFNAME": "eth1,ib0", "GLOO_SOCKET_IFNAME": "eth1", "HF_HOME": "/models", "HF_TOKEN": "hf_x", "OTHER": "1"}
    for share in shares(on_hosts("cluster.export=[HF_HOME]"), RUN_DIR, site, "/"):
        passed = share.argv[1 : share.argv.index(sys.executable)]
        assert [word for word in passed if not word.startswith("PYTHONPATH=")] == [
            "GLOO_SOCKET_IFNAME=eth1", "HF_HOME=/models", "NCCL_SOCKET_IFNAME=eth1,ib0",
        ]  # fmt: skip


def test_the_ranks_meet_where_it_is_said_and_at_a_port_that_every_machine_knows() -> None:
    words = ('cluster.hosts=["me@gpu1","[fe80::7]"]',)
    assert "--master-addr=gpu1" in shares(on_hosts(*words), RUN_DIR, {}, "/")[1].ranks
    assert "--master-addr=fe80::9" in shares(on_hosts(*words, "cluster.address=fe80::9"), RUN_DIR, {}, "/")[0].ranks
    ports = {word for share in shares(on_hosts(*words), RUN_DIR, {}, "/") for word in share.ranks if word.startswith("--master-port=")}
    assert len(ports) == 1
    assert shares(on_hosts(*words), RUN_DIR, {}, "/")[1].host == "fe80::7"


def test_accelerate_and_another_python_are_started_likewise() -> None:
    share = shares(on_hosts("backend=accelerate", "cluster.python=/opt/p/bin/python"), RUN_DIR, {}, "/")[1]
    assert share.ranks[:3] == ("/opt/p/bin/python", "-m", "accelerate.commands.launch")
    assert {"--machine-rank=1", "--main-process-ip=node01"} <= set(share.ranks)
    assert "/opt/p/bin/python" in share.argv


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ("cluster.address='a b'", ConfigError, "cluster.address=a b cannot be used on another machine. Write a name or an address"),
        ("cluster.python=python3", ConfigError, "cluster.python=python3 cannot be used on another machine. Write an absolute path"),
        ("cluster.export=['A=1']", ConfigError, "cluster.export=A=1 cannot be used"),
        ("cluster.export=[HF_TOKEN]", Unsafe, "cluster.export=HF_TOKEN would show a secret"),
        ("cluster.export=[STORE_PASSWORD]", Unsafe, "cluster.export=STORE_PASSWORD would show a secret"),
        ("cluster.start=rsh", ConfigError, "cluster.start=rsh is out of range. It must be one of ssh, print"),
        ("cluster.connect_seconds=0", ConfigError, "cluster.connect_seconds=0 is out of range"),
    ],
)
def test_what_no_machine_could_use_is_refused_before_a_folder_is_made(given: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        judge_run(composed(*WORDS, given))


def test_machines_are_needed_to_judge_a_run_and_not_to_compose_it() -> None:
    run = composed("model=demo", "data=demo", "node=cpu", "cluster=hosts")
    with pytest.raises(ConfigError, match=r"cluster=hosts needs the machines\. Name them: cluster\.hosts="):
        judge_run(run)


@pytest.mark.parametrize("again", ["backend.max_restarts=1", "training.on_oom=split", "training.on_nan=rollback"])
def test_a_run_whose_commands_a_person_starts_is_not_started_again_by_itself(again: str) -> None:
    with pytest.raises(ConfigError, match=f"{again.partition('=')[0]}.* starts a run again by itself"):
        judge_run(composed(*WORDS, "cluster.start=print", again))
    assert judge_run(composed(*WORDS, again)).verdict.permitted


def test_the_plan_shows_what_each_machine_starts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = (*WORDS, f"output={tmp_path}", "training.precision=fp32")
    assert main(["plan", *words]) == 0
    text = capsys.readouterr().out
    assert "machine 1, node02:\n  ssh -T " in text
    assert "    which starts: " in text
    assert "--node-rank=1 --master-addr=node01" in text
    assert main(["plan", "--json", *words]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [machine["host"] for machine in told["machines"]] == ["node01", "node02"]
    plan = plan_for(judge_run(composed(*words, "cluster.start=print")), RUN_DIR)
    assert not any("--attached" in share.argv for share in plan.shares)
    assert not list(tmp_path.iterdir())


WELL, ON, NOT_YET = Seen(True, 0), Seen(True, None), Seen(False, None)


@pytest.mark.parametrize(
    ("looks", "passed", "limit", "ending", "first"),
    [
        ([ON, ON], 900.0, 60, False, None),
        ([ON, NOT_YET], 59.0, 60, False, None),
        ([ON, NOT_YET], 61.0, 60, False, 1),
        ([ON, NOT_YET], 9000.0, None, False, None),  # a person starts them
        ([ON, Seen(False, 255)], 1.0, 60, False, 1),
        ([Seen(True, 1), Seen(False, 2)], 1.0, 60, False, 1),  # what never began explains the other
        ([WELL, Seen(True, 1)], 1.0, 60, False, 1),
        ([ON, Seen(True, 1)], 1.0, 60, True, None),  # its ranks have saved, and the others still write
        ([WELL, WELL], 1.0, 60, False, None),
    ],
)
def test_which_machine_keeps_the_run_from_going_on(looks: list[Seen], passed: float, limit: int | None, ending: bool, first: int | None) -> None:
    assert failed(looks, passed, limit, ending) == first


@pytest.mark.parametrize(
    ("seen", "said", "code", "message"),
    [
        (Seen(False, 255), "ssh: Could not resolve hostname node02", SUBMISSION, "node02 (node 1) was not reached through ssh:\n  | ssh: Could not"),
        (Seen(False, None), "", SUBMISSION, "node02 (node 1) has not begun within 60 s (cluster.connect_seconds).\nTry it: ssh node02 true."),
        (Seen(False, 2), "regimen: /shared is not on node02.", CONFIG, "could not start its ranks (exit code 2):\n  | regimen: /shared is not on"),
        (Seen(False, 127), "env: python: No such file", SUBMISSION, "could not start its ranks (exit code 127)"),
        (Seen(True, 255), "client_loop: send disconnect: Broken pipe", LOST_PEER, "The connection to node02 (node 1) broke:\n  | client_loop"),
        (Seen(True, 1), "", RANKS_FAILED, "The ranks of node02 (node 1) ended without a message (exit code 1)"),
    ],
)
def test_why_a_run_ends_names_the_machine_and_what_it_said(seen: Seen, said: str, code: int, message: str, tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    run_dir.logs.mkdir()
    (run_dir.logs / "host-1.txt").write_text(f"{said}\n")
    outcome = cause(run_dir, shares(on_hosts(), run_dir, {}, "/")[1], seen, 60)
    assert outcome.exit_code == code
    assert message in outcome.message
    assert f"regimen train resume={tmp_path}" in outcome.message


def left(run_dir: RunDir, rank: int, code: int) -> None:
    run_dir.exit_file(rank).write_text(json.dumps({"rank": rank, "code": code, "message": f"rank {rank} says why", "time": 1.0}))


def test_what_a_rank_says_of_itself_counts_before_what_is_known_of_its_machine(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    run_dir.exits.mkdir()
    run_dir.hosts_failure.write_text(json.dumps({"code": RANKS_FAILED, "message": "The ranks of node02 ended"}))
    assert outcome_of(run_dir, 6).message == "The ranks of node02 ended"
    left(run_dir, 0, LOST_PEER)
    assert outcome_of(run_dir, 6).message == "The ranks of node02 ended"
    left(run_dir, 1, 80)
    assert (outcome_of(run_dir, 6).exit_code, "rank 1 says why" in outcome_of(run_dir, 6).message) == (80, True)
    left(run_dir, 0, SAVED)
    left(run_dir, 1, SAVED)
    assert outcome_of(run_dir, 6).exit_code == SAVED


def test_a_rank_of_another_machine_hangs_when_its_sign_stands_still_and_nobody_here_gets_a_signal(tmp_path: Path) -> None:
    """Its number is that of this process, which would die of SIGUSR2."""
    run_dir = RunDir(tmp_path)
    for folder in (run_dir.exits, run_dir.signs, run_dir.logs):
        folder.mkdir()
    save_run(on_hosts("hang.training=10"), run_dir)
    watcher = Watcher(run_dir, 0.0)
    assert watcher.look(1000.0) is None  # no machine has begun
    for number in (0, 1):
        run_dir.host_file(number).write_text("{}")
    for rank in range(4):
        run_dir.sign(rank).write_bytes(as_record(Sign(os.getpid(), 1, TRAINING, 7, 7, 1)))
    for now in range(1001, 1010):
        assert watcher.look(float(now)) is None
    left(run_dir, 3, 0)
    found = [hangs for now in range(1010, 1020) for hangs in [watcher.look(float(now))] if hangs is not None]
    assert found[0].ranks == (0, 1, 2)  # the last one has ended by itself
    report(run_dir, "Ranks 0, 1, 2 hang.", watcher.history)
    assert f"rank 0: process {os.getpid()} of its machine, phase training, step 7" in run_dir.hang_log.read_text()
