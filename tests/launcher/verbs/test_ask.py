"""predict, evaluate, chat: what may be asked of a run, and what is refused before a process is started."""

import importlib.util
import json
from pathlib import Path

import pytest

from conf.request import Predict, Sampling, Trained
from conf.run_dir import RunDir, save_run
from conf.schema import Run
from launcher.cli import main
from launcher.errors import ConfigError
from launcher.rules.ranges import check_values
from launcher.verbs import ask
from launcher.verbs.ask import asked_run, fingerprint, holds_out, refuse_absent_packages, refuse_bad_sampling
from tests.described import described

GREEDY = Sampling(max_new_tokens=8, temperature=0.0, top_p=1.0, seed=0)


def recorded(*overrides: str) -> Run:
    return described("model=demo", "data=demo", "node=cpu", *overrides)


def finished_run(root: Path, config: str = '{"architectures": ["LlamaForCausalLM"]}') -> RunDir:
    run_dir = RunDir(root)
    save_run(recorded("regime=full"), run_dir)
    run_dir.model.mkdir()
    (run_dir.model / "config.json").write_text(config)
    return run_dir


def test_other_sets_are_asked_with_everything_else_as_it_was_trained() -> None:
    run = asked_run(recorded(), ["a.json", "b.json"], ["data.folder=mine", "data.max_samples=5"])
    assert (run.data.sets, run.data.folder, run.data.max_samples) == (["a.json", "b.json"], "mine", 5)
    assert run.data.cutoff == recorded().data.cutoff
    assert asked_run(recorded(), [], ["data.sets=[c.json]"]).data.sets == ["c.json"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["optim.lr=1"], "optim.lr belongs to the training of this run"),
        (["data.packing=true"], "data.packing belongs to the training of this run"),
        (["data.set=[a]"], "data.set is not a key of this run"),
        (["+data.sets=[a]"], "`+key` and `~key` are not supported"),
        (["data.max_samples=0"], "data.max_samples=0 is out of range"),
        (["data.max_samples=1,2"], "one value for each key"),
    ],
)
def test_what_would_change_more_than_the_question_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace(".", r"\.").replace("+", r"\+")):
        asked_run(recorded(), [], overrides)


def test_what_only_training_needed_may_be_gone(tmp_path: Path) -> None:
    judge = RunDir(tmp_path / "judge")
    judge.path.mkdir()
    save_run(recorded("stage=rm"), judge)
    judge.model.mkdir()
    run = recorded("stage=ppo", f"stage.reward_model={judge.path}", "data.mixing=interleave_under", "data.probabilities=[1.0]")
    check_values(run)  # as at the start of its training
    judge.path.rename(tmp_path / "moved")
    with pytest.raises(ConfigError, match=r"stage\.reward_model="):
        check_values(run)
    assert asked_run(run, ["a.json", "b.json"], ["data.max_samples=5"]).data.sets == ["a.json", "b.json"]


@pytest.mark.parametrize(
    ("given", "named"), [(("--data", "nosuch"), "--data: nosuch is neither"), (("data.sets=[nosuch]",), "data.sets: nosuch is neither")]
)
def test_a_set_that_is_not_there_is_named_with_the_option_that_names_it(
    given: tuple[str, ...], named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    finished_run(tmp_path)
    monkeypatch.setattr(ask, "run_verb", lambda *_, **__: pytest.fail("a process was started"))
    assert main(["predict", str(tmp_path), *given]) == 4
    assert capsys.readouterr().err.startswith(f"regimen: {named}")


def test_sets_are_named_once() -> None:
    with pytest.raises(ConfigError, match=r"--data and data\.sets both"):
        asked_run(recorded(), ["a.json"], ["data.sets=[b.json]"])


def test_the_same_question_has_the_same_folder_and_another_has_another() -> None:
    request = Predict(Trained("/r", "/r/model", None), "", 8, True, GREEDY)
    first = fingerprint(recorded(), request)
    assert first == fingerprint(recorded(), Predict(Trained("/r", "/r/model", None), "elsewhere", 4, True, GREEDY))  # a batch changes no answer
    others = [
        fingerprint(recorded("data.max_samples=5"), request),
        fingerprint(recorded(), Predict(request.trained, "", 8, False, GREEDY)),
        fingerprint(recorded(), Predict(request.trained, "", 8, True, Sampling(8, 0.5, 1.0, 0))),
    ]
    assert len({first, *others}) == 4


def test_samples_are_held_out_by_a_share_or_by_sets_of_their_own() -> None:
    assert holds_out(recorded())  # a tenth
    assert not holds_out(recorded("data.validation_share=0"))
    assert holds_out(recorded("data.validation_share=0", "data.evaluation_sets=[x.json]"))


@pytest.mark.parametrize(
    ("sampling", "batch", "message"),
    [
        (Sampling(0, 0.0, 1.0, 0), 1, "--max-new-tokens 0"),
        (Sampling(1, -0.1, 1.0, 0), 1, "--temperature -0.1"),
        (Sampling(1, float("nan"), 1.0, 0), 1, "--temperature nan"),
        (Sampling(1, 0.0, 0.0, 0), 1, "--top-p 0.0"),
        (Sampling(1, 0.0, 1.0, -1), 1, "--seed -1"),
        (GREEDY, 0, "--batch 0"),
    ],
)
def test_settings_out_of_range_are_named(sampling: Sampling, batch: int, message: str) -> None:
    with pytest.raises(ConfigError, match=f"{message} is out of range"):
        refuse_bad_sampling(sampling, batch)


def test_an_absent_extra_is_one_message_with_the_command() -> None:
    refuse_absent_packages("predict", "its scores", {"json": "json"})
    with pytest.raises(ConfigError, match=r"predict needs its scores\. Install it with `pip install not-there`"):
        refuse_absent_packages("predict", "its scores", {"json": "json", "not_there_at_all": "not-there"})


@pytest.mark.parametrize("verb", [("predict",), ("evaluate", "--tasks", "x"), ("chat",)])
@pytest.mark.parametrize(
    ("folder", "message"),
    [("nowhere", "nowhere is not a run folder"), ("scorer", "is a reward model (stage=sft). It outputs a score and cannot generate text")],
)
def test_every_verb_refuses_what_cannot_answer(
    verb: tuple[str, ...], folder: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if verb[0] == "evaluate" and importlib.util.find_spec("lm_eval") is None:
        pytest.skip("lm-eval is an extra")
    (tmp_path / "scorer").mkdir()
    finished_run(tmp_path / "scorer", '{"architectures": ["LlamaForSequenceClassification"]}')
    monkeypatch.chdir(tmp_path)
    assert main([verb[0], folder, *verb[1:]]) == 2
    assert message in capsys.readouterr().err
    assert sorted(path.name for path in (tmp_path / "scorer").iterdir()) == ["model", "run.yaml"]


@pytest.mark.skipif(importlib.util.find_spec("lm_eval") is None, reason="lm-eval is an extra")
def test_evaluate_overwrites_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_dir = finished_run(tmp_path)
    run_dir.evaluations.mkdir()
    (run_dir.evaluations / "final-a-b.json").write_text("mine")
    assert main(["evaluate", str(tmp_path), "--tasks", "a,b"]) == 2
    assert "final-a-b.json exists already" in capsys.readouterr().err
    assert main(["evaluate", str(tmp_path), "--tasks", "a", "--include", str(tmp_path / "no")]) == 2
    assert "no is not a folder" in capsys.readouterr().err


def test_of_a_model_folder_the_sets_and_the_place_of_the_answers_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**recorded().model.architecture, "architectures": ["LlamaForCausalLM"]}))
    (tmp_path / "a.jsonl").write_text('{"prompt": "q"}\n')
    assert main(["predict", str(tmp_path)]) == 2
    assert "is a model folder, and no run says which samples to ask. Name sets with --data SET." in capsys.readouterr().err
    assert main(["predict", str(tmp_path), "--data", str(tmp_path / "a.jsonl")]) == 2
    assert "nothing is written into it. Say where the results go with --to." in capsys.readouterr().err


def test_the_base_of_a_reward_model_cannot_answer_either(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_run(recorded("stage=rm", "regime=full"), RunDir(tmp_path))
    assert main(["chat", str(tmp_path), "--base"]) == 2
    assert "trained a reward model (stage=rm), so chat cannot use its base either" in capsys.readouterr().err
