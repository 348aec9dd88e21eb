"""`regimen import`: the file that it writes, what it says of every argument, and what it refuses."""

import json
from pathlib import Path

import pytest
import yaml

from launcher.cli import main, parsed_arguments
from launcher.composition.compose import compose
from launcher.composition.run_file import read_run_file

THEIRS = """model_name_or_path: Qwen/Qwen2.5-0.5B-Instruct
stage: sft
do_train: true
dataset: law
dataset_dir: {folder}
learning_rate: 2e-4
per_device_train_batch_size: 2
gradient_accumulation_steps: 4
bf16: true
plot_loss: true
output_dir: {folder}/saves
deepspeed: ds.json
"""


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    (tmp_path / "ds.json").write_text(json.dumps({"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu"}}}))
    path = tmp_path / "lf.yaml"
    path.write_text(THEIRS.format(folder=tmp_path))
    return path


def test_the_written_file_is_a_run_and_every_argument_is_said(theirs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ours = tmp_path / "mine.yaml"
    assert main(["import", str(theirs), "--save", str(ours)]) == 0
    printed = capsys.readouterr()
    lines = printed.err.splitlines()
    assert [line.split()[0] for line in lines[: len(yaml.safe_load(theirs.read_text()))]] == [*yaml.safe_load(theirs.read_text())]
    assert "learning_rate                -> optim.lr: 0.0002" in lines
    assert "plot_loss                    no effect: the loss is always drawn, into `plots/loss.png` of the run folder" in lines
    assert "regime.alpha: 16" in lines[-1]
    assert f"Check it with `regimen plan {ours}`" in printed.out
    run = compose([line.text for line in read_run_file(ours)])
    assert (run.optim.lr, run.training.micro_batch, run.training.accumulation, run.sharding.name) == (2e-4, 2, 4, "zero2_offload")
    assert (run.optim.scheduler, run.optim.warmup, run.training.epochs) == ("linear", 0, 3)


def test_without_save_the_file_is_printed(theirs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import", str(theirs)]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["regime"] == "lora"


def test_a_command_line_is_translated(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["FORCE_TORCHRUN=1", "llamafactory-cli", "train", "--stage", "dpo", "--model_name_or_path", "a/b", "--dataset", "x,y", "--bf16"]
    assert main(["import", "--", *words, "--learning-rate=1e-5"]) == 0
    values = yaml.safe_load(capsys.readouterr().out)
    assert (values["stage"], values["model.path"], values["data.sets"], values["optim.lr"]) == ("dpo", "a/b", ["x", "y"], 1e-5)


def test_arguments_after_a_file_replace_its_own(theirs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import", "--", "llamafactory-cli", "train", str(theirs), "learning_rate=5e-6"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["optim.lr"] == 5e-6


def test_what_cannot_mean_the_same_leaves_no_file(theirs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    theirs.write_text(theirs.read_text() + "use_dft_loss: true\nlora_rnak: 4\n")
    assert main(["import", str(theirs), "--save", str(tmp_path / "mine.yaml")]) == 2
    said = capsys.readouterr().err
    assert "2 of the arguments cannot mean the same here, so no file is written:\n  use_dft_loss: the DFT loss is not supported." in said
    assert "lora_rnak: it is not an argument that is known here. Did you mean lora_rank?" in said
    assert not (tmp_path / "mine.yaml").exists()


def test_run_starts_what_was_translated_through_the_gate_of_train(theirs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its data set is not there: the message and the exit code are those of train, and no run folder is left."""
    assert main(["import", str(theirs), "--run"]) == 4
    assert "data.sets: law is neither a name in" in capsys.readouterr().err
    assert not (tmp_path / "saves").exists()


EXPORT = "model_name_or_path: a/b\nadapter_name_or_path: saves/lora\ntemplate: llama3\nexport_dir: merged\nexport_size: 5\nexport_device: cpu\n"
PREDICT = """model_name_or_path: a/b
template: llama3
stage: sft
do_predict: true
predict_with_generate: true
eval_dataset: identity,alpaca_en_demo
max_samples: 50
cutoff_len: 2048
per_device_eval_batch_size: 1
output_dir: saves/predict
"""
CHAT = "model_name_or_path: a/b\ntemplate: llama3\ninfer_backend: huggingface\ntrust_remote_code: true\n"


@pytest.mark.parametrize(
    ("text", "command"),
    [
        (EXPORT, "regimen export RUN --to merged --shard-size 5GB"),
        (
            PREDICT,
            "regimen predict RUN --data identity --data alpaca_en_demo data.folder=data data.max_samples=50 data.cutoff=2048 --batch 1 "
            "--to saves/predict --max-new-tokens 1024 --temperature 0.95 --top-p 0.7",
        ),
        (PREDICT + "do_sample: false\n", "--max-new-tokens 1024"),
        (CHAT, "regimen chat RUN --max-new-tokens 1024 --temperature 0.95 --top-p 0.7"),
    ],
)
def test_a_file_that_trains_nothing_becomes_the_command_that_does_the_same(
    text: str, command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "other.yaml"
    path.write_text(text)
    assert main(["import", str(path)]) == 0
    printed, said = capsys.readouterr()
    assert printed.strip().endswith(command)
    parsed_arguments(printed.split()[1:])  # a command that there is
    assert {line.split(" ")[0] for line in said.splitlines()} >= {line.split(":")[0] for line in text.splitlines()}


@pytest.mark.parametrize(
    ("text", "more", "told"),
    [
        (EXPORT + "export_quantization_bit: 4\n", (), "export_quantization_bit: an exported model is not quantised"),
        (CHAT + "colour: red\n", (), "colour: it is not an argument that is known of chat"),
        (CHAT, ("--save", "mine.yaml"), "so there is no file of a run to save. Leave out --save"),
        (CHAT, ("--run",), "so there is no run to start. Leave out --run"),
    ],
)
def test_what_cannot_be_done_of_such_a_file_is_refused(
    text: str, more: tuple[str, ...], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "other.yaml"
    path.write_text(text)
    assert main(["import", str(path), *more]) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("text", ["[1, 2]", "", "a: [", "\ufeff- x"])
def test_a_broken_file_is_one_message(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "lf.yaml"
    path.write_text(text)
    assert main(["import", str(path)]) == 2
    assert capsys.readouterr().err.count("regimen:") == 1


@pytest.mark.parametrize(
    ("name", "text", "line"), [("lf.yaml", "stage: sft\nstage: pt\n", 2), ("lf.json", '{"stage": "sft",\n "bf16": true,\n "stage": "pt"}', 3)]
)
def test_a_key_that_stands_twice_is_refused_with_its_line(
    name: str, text: str, line: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_text(text)
    assert main(["import", str(tmp_path / name)]) == 2
    assert f"{name}, line {line}: stage stands twice. Keep one of the two." in " ".join(capsys.readouterr().err.split())


def test_a_prompt_of_the_system_that_begins_with_a_dash_is_no_option(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "chat.yaml").write_text("model_name_or_path: a/b\ntemplate: qwen\ninfer_backend: huggingface\ndefault_system: --help\n")
    assert main(["import", str(tmp_path / "chat.yaml")]) == 0
    assert "--system=--help" in capsys.readouterr().out
    assert parsed_arguments(["chat", "RUN", "--system=--help"]).system == "--help"
