"""A task of lm-evaluation-harness from a local file, on a run that learned its answers by heart; nothing is downloaded."""

import json
from pathlib import Path

import pytest
import yaml

from conf.request import Evaluate, Trained
from conf.run_dir import RunDir, load_run

pytest.importorskip("lm_eval", reason="lm-eval is an extra")

QUESTIONS = [("What is the sky?", "Blue."), ("What is grass?", "Green."), ("What is coal?", "Black.")]


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    """Three questions with the learned answer first; the last one says that another is right."""
    folder = tmp_path / "tasks"
    folder.mkdir()
    rows = [{"question": question, "choices": [answer, "Seven."], "right": int(question.endswith("coal?"))} for question, answer in QUESTIONS]
    (folder / "colours.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    task = {
        "task": "colours",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / "colours.jsonl")}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{right}}",
        "doc_to_choice": "{{choices}}",
        "target_delimiter": "",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }
    (folder / "colours.yaml").write_text(yaml.safe_dump(task))
    return folder


def request_of(run_dir: RunDir, tasks: Path, *names: str) -> Evaluate:
    trained = Trained(str(run_dir.path), str(run_dir.model), None)
    target = tasks.parent / "results" / "found.json"
    return Evaluate(trained, str(target), names, str(tasks), shots=0, limit=None, batch=2, chat=True)


def test_a_task_of_the_users_own_is_scored(
    learned: RunDir, tasks: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from trainers.verbs.evaluate import evaluate

    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    request = request_of(learned, tasks, "colours")
    evaluate(load_run(learned), request)
    results = json.loads(Path(request.target).read_text())
    assert results["results"]["colours"]["acc,none"] == pytest.approx(2 / 3)  # the third counts as wrong
    assert (results["weights"], results["n-samples"]["colours"]["effective"], results["chat_template"]) == ("final", 3, True)
    assert "colours                 acc                 0.6667" in capsys.readouterr().out


def test_an_unknown_task_is_named_with_its_neighbours() -> None:
    from trainers.verbs.evaluate import refuse_unknown

    refuse_unknown(("colours",), {"colours", "sums"})
    with pytest.raises(ValueError, match=r"--tasks colour is not a task\. Near names: colours\."):
        refuse_unknown(("sums", "colour"), {"colours", "sums"})
    with pytest.raises(ValueError, match=r"--tasks x is not a task\. `lm_eval --tasks list`"):
        refuse_unknown(("x",), {"colours", "sums"})


def test_a_task_whose_data_cannot_be_loaded_is_named(learned: RunDir, tasks: Path) -> None:
    from trainers.errors import DataError
    from trainers.verbs.evaluate import evaluate

    (tasks / "colours.jsonl").unlink()
    with pytest.raises(DataError, match=r"--tasks colours: their data cannot be loaded: .*colours.jsonl"):
        evaluate(load_run(learned), request_of(learned, tasks, "colours"))
