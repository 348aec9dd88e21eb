"""What the process that judges for the board answers: the words of `regimen plan`, and forms that say the same as files and runs."""

import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from conf.run_dir import RunDir, save_run
from conf.run_values import run_as_dict
from launcher.board import form
from launcher.board.judge import Judge
from launcher.board.worker import answer
from launcher.composition.compose import compose
from launcher.errors import ConfigError
from launcher.verbs.smaller import smaller_lines
from tests.boards import without_free_disk
from tests.described import described
from tests.in_process import call_here

ODD_TEXTS = (
    "1.10",
    "it's",
    '"',
    "中文",
    "x; rm -rf ~",
    "$(id)",
    "`id`",
    "a,b",
    "[a]",
    "yes",
    "a#b",
    "a: b",
    "back\\slash",
    " a ",
    "a=b",
    "--x",
    "'a'",
    "{a:1}",
)
VALUES = {
    "model": ("demo", "qwen2.5_0.5b", "llama3.1_8b", "qwen2.5_7b"),
    "node": ("cpu", "a100_40", "a100_80", "h100_80"),
    "regime": ("full", "freeze", "lora", "qlora"),
    "sharding": ("ddp", "zero2", "zero3", "fsdp2"),
    "optim": ("adamw", "sgd", "lion"),
    "training.max_steps": ("10", "1000"),
    "training.micro_batch": ("1", "4", "64"),
    "data.cutoff": ("512", "8192", "x", "-1"),
    "optim.lr": ("1e-4", "0.01", "[1]"),
    "training.precision": ("bf16_amp", "bf16", "fp7"),
    "name": ("mine", "1.10", "中文", "yes", "a b", "it's"),
    "tracking.project": ODD_TEXTS,
    "data.sets": ("[generated]", "[my.jsonl, 'a, b.jsonl']", "[org/name]"),
    "regime.targets": ("[q_proj, v_proj]", "[all-linear]"),
    "regime.rank": ("8", "eight"),
    "training.epochs": ("1", "0.5"),
    "nosuch.key": ("1",),
}


def drawn_form(seed: int) -> dict[str, str]:
    drawn = random.Random(seed)
    keys = [key for key in VALUES if drawn.random() < (0.7 if "." not in key and key != "name" else 0.15)]
    return {"data": "demo", **{key: drawn.choice(VALUES[key]) for key in keys}}


def question(ask: str, given: dict[str, str], **more: Any) -> dict[str, Any]:
    return answer({"ask": ask, "form": given, "roots": [str(Path.cwd())], **more})


def compare(given: dict[str, str], capfd: pytest.CaptureFixture[str]) -> int:
    """The board's answer about a form against that of the command line; the exit code of both."""
    found = question("plan", given)
    if "nosuch.key" in given:
        assert found["error"].startswith("the form: nosuch.key ")
        return 2
    words = form.overrides_of(given)
    said = call_here(capfd, "plan", *words)
    if found["error"]:
        assert (said.code, said.err) == (found["code"], f"regimen: {found['error']}\n")
        return said.code
    more = question("proposals", given)["text"] if not found["permitted"] else ""
    whole = found["text"] + (f"\n\n{more}" if more else "") + "\n"
    assert (said.code, without_free_disk(said.out)) == (found["code"], without_free_disk(whole))
    return said.code


def test_the_board_says_of_a_form_what_the_command_line_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    codes = [compare(drawn_form(seed), capfd) for seed in range(10)]
    assert {0, 2, 3} <= set(codes)


def test_the_command_of_the_ranks_and_the_batch_script_are_those_of_the_plan() -> None:
    found = question("plan", {"model": "demo", "data": "demo", "node": "a100_80", "node.gpus": "2", "cluster": "slurm"})
    for part in ("processes", "script"):
        assert set(map(str.strip, found[part].splitlines())) <= set(map(str.strip, found["text"].splitlines()))
    assert found["script"].startswith("#!/bin/bash")
    assert found["processes"].startswith("sbatch --parsable ")
    assert question("plan", {"model": "demo", "data": "demo", "node": "cpu"})["script"] == ""


@pytest.mark.long
def test_the_board_says_of_300_forms_what_the_command_line_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    codes = [compare(drawn_form(seed), capfd) for seed in range(1000, 1300)]
    assert min(codes.count(code) for code in (0, 2, 3)) >= 10


def test_every_text_reaches_the_run_as_it_was_typed() -> None:
    for text in ODD_TEXTS:
        assert compose(form.overrides_of({"tracking.project": text})).tracking.project == text


def test_a_text_has_quotes_only_where_it_needs_them() -> None:
    plain = ("mine", "a_b-1", "Qwen/Qwen2.5-0.5B", "_x.y", "run-1.10")
    odd = ("1.10", "true", "nan", "-x", "a b", "a,b", "中文", "it's", "'mine'", "x:y", "a=b", "")
    assert form.overrides_of({"tracking.project": "mine", "name": "1.10"}) == ["tracking.project=mine", "name='1.10'"]
    lists = {"[my.jsonl, 'a, b.jsonl']": "[my.jsonl,'a, b.jsonl']", "['true', x]": "['true',x]", "['[a]', \"',b,'\"]": "['[a]','\\',b,\\'']"}
    for text, written in lists.items():
        assert form.overrides_of({"data.sets": text}) == [f"data.sets={written}"]
        assert compose([f"data.sets={written}", "recipe=demo"]).data.sets == yaml.safe_load(text)
    for text in plain:
        assert form.overrides_of({"tracking.project": text}) == [f"tracking.project={text}"]
    for text in (*plain, *odd):
        assert compose([*form.overrides_of({"tracking.project": text}), "recipe=demo"]).tracking.project == (text or None)


def test_each_proposal_leads_to_a_form_that_is_permitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    refused = {"model": "llama3.1_8b", "data": "demo", "node": "a100_80", "node.gpus": "2", "regime": "full", "training.max_steps": "10"}
    assert question("plan", refused)["permitted"] is False
    proposals = question("proposals", refused)["proposals"]
    assert len(proposals) >= 2
    assert [question("plan", proposal["form"]).get("permitted") for proposal in proposals[:2]] == [True, True]


def test_a_saved_form_is_the_same_when_it_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given = {
        "model": "qwen2.5_0.5b",
        "data": "files",
        "data.sets": "[my.jsonl]",
        "regime": "qlora",
        "regime.bits": "8",
        "optim.lr": "2e-4",
        "name": "1.10",
    }
    text = question("save", given)["text"]
    loaded = question("load", {}, text=text)["form"]
    assert run_as_dict(compose(form.overrides_of(loaded))) == run_as_dict(compose(form.overrides_of(given)))
    assert question("save", loaded)["text"] == text


def test_what_is_no_text_is_refused_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "halves of characters" in str(question("load", {}, text="\ud800"))
    assert "nested too deeply" in str(question("load", {}, text="{" * 20_000))


def test_a_training_file_of_llama_factory_is_translated_with_a_line_for_each_argument(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = "model_name_or_path: Qwen/Qwen2.5-0.5B-Instruct\nstage: sft\ndo_train: true\n"
    text += "finetuning_type: lora\nlora_rank: 16\ndataset: identity\ncutoff_len: 512\n"
    found = question("load", {}, text=text)
    assert (found["form"]["data.cutoff"], found["form"]["model"]) == ("512", "qwen2.5_0.5b_instruct")
    assert "lora_rank" in found["told"]


def test_a_training_file_of_axolotl_is_translated_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = "base_model: Qwen/Qwen2.5-0.5B\nadapter: lora\nlora_r: 32\nlora_alpha: 32\nlora_target_linear: true\nlearning_rate: 2e-4\n"
    found = question("load", {}, text=text + "datasets: [{path: a/b, type: alpaca}]\n")
    assert (found["form"]["model"], found["form"]["regime.rank"], found["form"]["data.template"]) == ("qwen2.5_0.5b", "32", "alpaca")
    assert "lora_r" in found["told"]
    assert "wrote" not in found["told"]


def test_a_file_that_cannot_be_read_is_named_with_its_line() -> None:
    found = question("load", {}, text="regime: lora\nregime.rnk: 8\n")
    assert found["error"].startswith("your file.yaml, line 2: ")
    assert "regime.rank" in found["error"]
    assert question("load", {}, text="a: [")["error"].startswith("your file.yaml is not YAML")


def test_the_form_of_an_earlier_run_describes_that_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = described("model=demo", "data=demo", "node=cpu", "optim.lr=3e-4", "name=before")
    save_run(run, RunDir(tmp_path))
    given = question("like", {}, path=str(tmp_path / "run.yaml"))["form"]
    assert (given["optim.lr"], given["name"]) == ("0.0003", "before")
    again = question("plan", given)["values"]
    assert (again["optim.lr"], again["name"], again["data.cutoff"]) == ("0.0003", "before", str(run.data.cutoff))


def test_a_run_that_ran_out_of_memory_is_told_what_needs_less(tmp_path: Path) -> None:
    overrides = ("model=qwen2.5_0.5b", "data=demo", "node=a100_40", "node.gpus=1", "regime=full")
    save_run(described(*overrides), RunDir(tmp_path))
    found = question("smaller", {}, path=str(tmp_path))
    assert found["text"].startswith("what needs less, cheapest first")
    assert found["text"].splitlines() == smaller_lines(RunDir(tmp_path))


def test_a_run_that_was_removed_meanwhile_is_named(tmp_path: Path) -> None:
    """Was: the process ended with a traceback."""
    found = question("asked", {}, path=str(tmp_path / "gone"))
    assert found["code"] == 2
    assert str(tmp_path / "gone" / "run.yaml") in found["error"]


def test_every_key_of_a_run_but_those_of_code_has_a_field() -> None:
    keys = {field.key for section in form.sections() for name in [form.first_choice(section.group)] for field in form.fields_of(section.group, name)}
    assert {"optim.lr", "regime.rank", "training.max_steps", "data.sets", "cluster.nodes", "checkpoint.interval"} <= keys
    for field in form.fields_of("training", "default"):
        assert field.help, field.key
    assert not any(field.key in form.CODE for field in form.fields_of("stage", "grpo"))
    assert {field.key: field.options for field in form.fields_of("data", "demo")}["data.packing"] == ("true", "false")


def test_what_lies_outside_of_the_folders_is_refused_unless_they_were_named(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc")
    for value in ("/etc/passwd", "../x", "link/passwd", "~/x"):
        with pytest.raises(form.Unsafe, match="--root FOLDER"):
            form.refuse_outside({"model.path": value}, tmp_path, [tmp_path])
        with pytest.raises(form.Unsafe, match="outside"):
            form.refuse_outside({"data.sets": f"[fine.jsonl, {value}]"}, tmp_path, [tmp_path])
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "linked.txt").symlink_to("/etc/passwd")
    with pytest.raises(form.Unsafe, match="outside"):
        form.refuse_outside({"data.sets": "[linked.txt]"}, tmp_path, [tmp_path])
    form.refuse_outside({"model.path": "org/name", "data.sets": "[a.jsonl]", "output": "outputs", "optim.lr": "/"}, tmp_path, [tmp_path])
    form.refuse_outside({"model.path": "/etc/passwd"}, tmp_path, [tmp_path, Path("/etc")])


def test_a_question_that_takes_too_long_ends_the_process_and_the_next_one_is_answered(tmp_path: Path) -> None:
    judge = Judge(tmp_path, (tmp_path,), seconds=0.0)
    with pytest.raises(ConfigError, match="The plan took longer than 0 s"):
        judge.ask("plan", form={})
    judge.seconds = 600.0
    try:
        assert judge.ask("plan", form={"regime.rnk": "1"})["code"] == 2
    finally:
        judge.end()
