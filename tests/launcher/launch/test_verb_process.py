"""How `-m trainers.<verb>` is started, and what each of its ends becomes."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from conf.request import Chat, Evaluate, Export, Predict, Sampling, Trained, load_chat, load_evaluate, load_export, load_predict, save_request
from conf.run_dir import RunDir
from launcher.errors import ConfigError, DataError, OutOfMemory, RanksFailed, RegimenError
from launcher.launch.verb_process import ended, verb_command, wait_for, working_commit

TRAINED = Trained("/runs/one", "/runs/one/model", None)
GREEDY = Sampling(max_new_tokens=8, temperature=0.0, top_p=1.0, seed=0)


def test_requests_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    for request, load in (
        (Export(TRAINED, "merged", "/x", None, 5, "a/b", True, None), load_export),
        (Predict(TRAINED, "/x", 8, True, GREEDY), load_predict),
        (Evaluate(TRAINED, "/x", ("a", "b"), None, 5, None, 8, False), load_evaluate),
        (Chat(TRAINED, "Be brief.", GREEDY), load_chat),
    ):
        save_request(request, tmp_path)
        assert load(tmp_path) == request


def test_secrets_reach_only_a_verb_that_asks_the_hub() -> None:
    site = {"HF_TOKEN": "secret", "WANDB_API_KEY": "secret", "HOME": "/home"}
    alone = verb_command("export", Path("/f"), needs_hub=False, hides_gpus=True).environment(site)
    asking = verb_command("export", Path("/f"), needs_hub=True, hides_gpus=False).environment(site)
    assert "HF_TOKEN" not in alone
    assert asking["HF_TOKEN"] == "secret"
    assert "WANDB_API_KEY" not in {**alone, **asking}
    assert (alone["CUDA_VISIBLE_DEVICES"], "CUDA_VISIBLE_DEVICES" in asking) == ("", False)
    assert (alone["PYTHONSAFEPATH"], asking["PYTHONSAFEPATH"]) == ("1", "1")


@pytest.mark.parametrize(("code", "kind"), [(2, ConfigError), (4, DataError), (80, OutOfMemory), (1, RegimenError)])
def test_a_verb_ends_with_its_own_message_and_code(code: int, kind: type[RegimenError], tmp_path: Path) -> None:
    folder = RunDir(tmp_path)
    folder.exits.mkdir()
    folder.exit_file(0).write_text(json.dumps({"code": code, "message": "what happened"}))
    with pytest.raises(kind, match="what happened") as raised:
        ended("export", folder, code)
    assert raised.value.exit_code == code


def test_a_verb_that_left_no_message_is_told_by_its_signal(tmp_path: Path) -> None:
    assert ended("export", RunDir(tmp_path), 0) == 0
    with pytest.raises(RanksFailed, match="export was ended by SIGKILL"):
        ended("export", RunDir(tmp_path), -9)
    with pytest.raises(RanksFailed, match="ended with exit code 3 and left no message"):
        ended("export", RunDir(tmp_path), 3)
    with pytest.raises(KeyboardInterrupt):
        ended("export", RunDir(tmp_path), 130)


def test_ctrl_c_is_left_to_the_verb_while_it_works() -> None:
    program = "import os, signal, time; os.kill(os.getppid(), signal.SIGINT); time.sleep(0.2); raise SystemExit(7)"
    assert wait_for(subprocess.Popen((sys.executable, "-c", program))) == 7


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_what_ends_a_job_is_passed_on_to_the_verb(number: signal.Signals) -> None:
    ask = f"os.kill(os.getppid(), {int(number)}); time.sleep(60)"
    saving = f"import os, signal, time; signal.signal(signal.SIGTERM, lambda *_: os._exit(75)); {ask}"
    before = signal.getsignal(number)
    assert wait_for(subprocess.Popen((sys.executable, "-c", saving))) == 75
    assert wait_for(subprocess.Popen((sys.executable, "-c", f"import os, time; {ask}"))) == 130  # it had nothing to keep
    assert signal.getsignal(number) is before


def test_the_commit_is_that_of_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert working_commit() is None
    for argv in (("init", "-q"), ("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "x")):
        subprocess.run(("git", *argv), check=True)
    commit = working_commit()
    assert commit is not None
    assert len(commit) == 40
