"""Conversations: through a pipe from end to end, the commands, Ctrl-C in the middle of an answer."""

import io
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from conf.request import Chat, Sampling, Trained
from conf.run_dir import RunDir, load_run
from launcher.cli import main
from tests.in_process import run_verbs_here
from tests.waiting import PATIENCE
from trainers.after_training.trained import load_trained
from trainers.model.conversation import prompt_ids
from trainers.verbs.chat import Conversation, answer_aloud, chat

GREEDY = Sampling(max_new_tokens=40, temperature=0.0, top_p=1.0, seed=0)


def trained_of(run_dir: RunDir) -> Trained:
    return Trained(str(run_dir.path), str(run_dir.model), None)


def asked(run_dir: RunDir, monkeypatch: pytest.MonkeyPatch, *lines: str, system: str | None = None, sampling: Sampling = GREEDY) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
    chat(load_run(run_dir), Chat(trained_of(run_dir), system, sampling))


def test_two_piped_questions_get_their_answers_from_the_command_line(learned: RunDir, site_environment: dict[str, str], tmp_path: Path) -> None:
    argv = (sys.executable, "-m", "launcher", "chat", str(learned.path))
    piped = "What is the sky?\n/clear\nWhat is snow?\n"
    done = subprocess.run(argv, input=piped, env=site_environment, capture_output=True, text=True, timeout=PATIENCE, check=False, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "Blue.\nWhite as milk.\n"), done.stderr


def test_a_model_folder_is_asked_without_its_run(
    learned: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(learned.model, tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.StringIO("What is snow?\n"))
    run_verbs_here(monkeypatch)
    assert main(["chat", "model"]) == 0
    assert capfd.readouterr().out == "White as milk.\n"


def test_the_answer_depends_on_what_was_said_before(learned: RunDir, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked(learned, monkeypatch, "What is coal?", "/exit", "What is grass?")
    assert capsys.readouterr().out == "Black.\n"
    conversation = Conversation("Be brief.", (("a", "b"),))
    assert [turn["content"] for turn in conversation.asking("c")] == ["Be brief.", "a", "b", "c"]
    assert [turn["role"] for turn in conversation.asking("c")] == ["system", "user", "assistant", "user"]


def test_commands_are_not_questions(learned: RunDir, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked(learned, monkeypatch, "/what", "", "/system", "What is grass?", "/clear", "What is grass?")
    printed = capsys.readouterr()
    assert printed.out == "Green.\nGreen.\n"
    assert "/what is not a command." in printed.err


def test_a_line_that_is_not_utf8_is_told_and_not_asked(learned: RunDir, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked(learned, monkeypatch, b"What is caf\xe9?".decode(errors="surrogateescape"), "What is grass?")
    printed = capsys.readouterr()
    assert printed.out == "Green.\n"
    assert "not UTF-8" in printed.err


def test_a_conversation_that_outgrows_the_model_goes_on_after_clear(
    learned: RunDir, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked(learned, monkeypatch, "x" * 600, "What is the sky?")
    printed = capsys.readouterr()
    assert printed.out == "Blue.\n"
    assert "more than the model has positions for" in printed.err


class Interrupting(io.StringIO):
    """A terminal on which someone presses Ctrl-C when the third piece appears."""

    pieces = 0

    def write(self, text: str) -> int:
        self.pieces += bool(text)
        if self.pieces == 3:
            signal.raise_signal(signal.SIGINT)
        return super().write(text)


def test_ctrl_c_stops_the_answer_and_not_the_chat(learned: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = load_trained(load_run(learned), trained_of(learned)), tokenizer_of(learned)
    hot = Sampling(max_new_tokens=400, temperature=50.0, top_p=1.0, seed=0)
    model.generation_config.eos_token_id = None
    screen = Interrupting()
    monkeypatch.setattr(sys, "stdout", screen)
    said = answer_aloud(model, tokenizer, hot, prompt_ids(tokenizer, Conversation(None, ()).asking("What is snow?")))
    assert len(said) < 100
    again = answer_aloud(model, tokenizer, GREEDY, prompt_ids(tokenizer, Conversation(None, ()).asking("What is snow?")))
    assert again == "White as milk."
    assert screen.getvalue().endswith("White as milk.\n")


def tokenizer_of(run_dir: RunDir) -> PreTrainedTokenizerBase:
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(run_dir.model)
    return tokenizer


def test_an_error_while_answering_is_not_a_silent_end(learned: RunDir) -> None:
    model, tokenizer = load_trained(load_run(learned), trained_of(learned)), tokenizer_of(learned)
    with pytest.raises(IndexError, match="index out of range"):
        answer_aloud(model, tokenizer, GREEDY, [10**6])  # a token that has no embedding
