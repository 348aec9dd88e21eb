"""What a newcomer may write wrongly: each mistake has one message, and the line that it shows works."""

import re
import shlex
from pathlib import Path

import pytest

from conf.groups import built_in_choices
from conf.schema import Composed
from launcher.cli import main
from launcher.composition.compose import compose
from launcher.composition.names import nearest_choices, nearest_key
from launcher.composition.spelling import PLAIN, line_for, llamafactory, parses, plainly
from launcher.errors import ConfigError

SHOWN = re.compile(
    r"Did you mean (.+?)(?: or .*)?\?(?: |$)|(?:Write: |[Aa]dd: |in brackets: )(?:regimen (?:train|plan) (?:-m )?)?(.+?)(?:$|\. `| or )"
)
DEMO = ("model=demo", "data=demo")
NODE = ("model=llama3.2_1b", "data=demo", "node=a100_80")


def refusal(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(argv) == 2
    said = capsys.readouterr().err
    assert said.startswith("regimen: ")
    assert len(said.splitlines()) == 1, said
    return said.removeprefix("regimen: ").strip()


def shown_line(said: str) -> list[str]:
    """The words of the line in a message, as a shell reads it."""
    found = SHOWN.search(said)
    assert found is not None, said
    return shlex.split(found[1] or found[2])


# what is written, the words of it that the message replaces, and what the run then holds
MISTAKES = [
    ("--regime lora", "regime=lora"),
    ("--regime=lora", "regime=lora"),
    ("--optim.lr 1e-4", "optim.lr=1e-4"),
    ("--optim.lr=1e-4", "optim.lr=1e-4"),
    ("--learning_rate 1e-4", "optim.lr=1e-4"),
    ("--learning-rate 1e-4", "optim.lr=1e-4"),
    ("--lr 1e-4", "optim.lr=1e-4"),
    ("--packing", "data.packing=true"),
    ("optim.lr = 1e-4", "optim.lr=1e-4"),
    ("optim.lr =1e-4", "optim.lr=1e-4"),
    ("optim.lr= 1e-4", "optim.lr=1e-4"),
    ("optim.lr 1e-4", "optim.lr=1e-4"),
    ("optim.lr: 1e-4", "optim.lr=1e-4"),
    ("'optim.lr = 1e-4'", "optim.lr=1e-4"),
    ("Optim.LR=1e-4", "optim.lr=1e-4"),
    ("optim.learning-rate=1e-4", "optim.lr=1e-4"),
    ("lr=1e-4", "optim.lr=1e-4"),
    ("lora_rank=8", "regime.rank=8"),
    ("lora_target=q_proj,v_proj", "regime.targets=[q_proj,v_proj]"),
    ("finetuning_type=lora", "regime=lora"),
    ("cutoff_len=128", "data.cutoff=128"),
    ("quantization_bit=4", "regime=qlora regime.bits=4"),
    ("dpo_label_smoothing=0.1", "stage=dpo stage.label_smoothing=0.1"),
    ("per_device_train_batch_size=2", "training.micro_batch=2"),
    ("batch_size=2", "training.micro_batch=2"),
    ("max_seq_length=128", "data.cutoff=128"),
    ("training.epoch=3", "training.epochs=3"),
    ("epochs=3", "training.epochs=3"),
    ("training.packing=true", "data.packing=true"),
    ("regime=LoRA", "regime=lora"),
    ("regime=loar", "regime=lora"),
    ("REGIME=lora", "regime=lora"),
    ("optim=AdamW", "optim=adamw"),
    ("optim=adamw-8bit", "optim=adamw_8bit"),
    ("data.sets=generated", "data.sets=[generated]"),
    ("data.sets=法律.json", 'data.sets=["法律.json"]'),
    ("'data.sets=[it(1).json]'", 'data.sets=["it(1).json"]'),
    ("data.sets=[a,b", 'data.sets=["a","b"]'),
    ("data.sets=a,b", "data.sets=[a,b]"),
    ("data.sets=[a, b]", "data.sets=[a, b]"),
    ("regime.targets=[q_proj, v_proj, o_proj]", "regime.targets=[q_proj, v_proj, o_proj]"),
    ("evaluation.generate=What is this?", "evaluation.generate=What is this?"),
    ("regime=lora,", "regime=lora"),
    ("regime==lora", "regime=lora"),
    ("""name="'mine" """, "name=mine"),
    ("output=~/runs", "output=$HOME/runs"),
    ("training.max_steps＝5", "training.max_steps=5"),
    ("data.sets=[法律，b]", 'data.sets=["法律","b"]'),
    ("data.sets=[“法律”]", 'data.sets=["法律"]'),
    ("data.folder＝法律", 'data.folder="法律"'),
]


@pytest.mark.parametrize(("written", "right"), MISTAKES, ids=[written for written, _ in MISTAKES])
def test_a_mistake_is_told_with_the_line_that_works(
    written: str, right: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    line = shown_line(refusal(["plan", *DEMO, *shlex.split(written)], capsys))
    assert " ".join(line) == right
    assert isinstance(compose([*DEMO, *(word.replace("$HOME", "/home/me") for word in line)]), Composed)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("data.sets=[法律.json,b.json]", 'data.sets=["法律.json","b.json"]'),
        ("output=/データ/実行", 'output="/データ/実行"'),
        ("evaluation.generate=法律是什么？", 'evaluation.generate="法律是什么？"'),
        ("name=甲,乙", 'name="甲","乙"'),  # of a sweep
        ("name=模型", 'name="模型"'),
    ],
)
def test_letters_of_every_script_need_no_quotes(written: str, read: str) -> None:
    assert plainly(written) == read
    assert parses(read)


@pytest.mark.parametrize("written", ["optim.lr=1e-4", 'name="模型"', "data=法律.jsonl", "data.sets=[法律，b]", "data.sets=[法律", "模型"])
def test_what_needs_no_quotes_or_a_message_stays_as_it_is(written: str) -> None:
    assert plainly(written) == written


def test_a_run_gets_its_chinese_name_and_data_as_they_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "法律.jsonl").write_text('{"instruction": "问", "output": "答"}\n' * 8, encoding="utf-8")
    given = ("name=模型", "data=files", "data.folder=.", "data.sets=[法律.jsonl]", "data.cutoff=64", "cluster.ranks_per_node=1")
    assert main(["plan", "model=demo", "node=cpu", *given]) == 0
    assert "outputs/模型/" in capsys.readouterr().out


CHOICES = [
    ("model=Qwen/Qwen2.5-7B", ["model=qwen2.5_7b"]),
    ("model=Qwen2.5-7B", ["model=qwen2.5_7b"]),
    ("--model Qwen/Qwen2.5-7B", ["model=qwen2.5_7b"]),
    ("model=me/my-model", ["model=local", "model.path=me/my-model"]),
    ("--model_name_or_path me/my-model", ["model=local", "model.path=me/my-model"]),
    ("model=./my_model", ["model=local", "model.path=./my_model"]),
    ("data=my.jsonl model=demo", ["data=files", "data.sets=[my.jsonl]"]),
    ("data=me/set model=demo", ["data=files", "data.sets=[me/set]"]),
    ("model=gpt2", ["model=local", "model.path=gpt2"]),
    ("model=~/models/law", ["model=local", "model.path=$HOME/models/law"]),
    ("data=alpaca_zh model=demo", ["data=files", "data.sets=[alpaca_zh]"]),
    ("data=法律.jsonl model=demo", ["data=files", 'data.sets=["法律.jsonl"]']),
    ("node=A100 model=demo", ["node=a100_40"]),
    ("--node h100", ["node=h100_80"]),
]


@pytest.mark.parametrize(("written", "right"), CHOICES, ids=[written for written, _ in CHOICES])
def test_a_model_a_set_or_a_node_in_the_place_of_a_choice_is_told_with_the_line_that_works(
    written: str, right: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    line = shown_line(refusal(["plan", *([] if "data=" in written else ["data=demo"]), *shlex.split(written)], capsys))
    assert line == right
    others = {"model": "model=local", "data": "data=demo"}
    given = [*(text for group, text in others.items() if not any(word.startswith(f"{group}=") for word in line)), *line]
    given = [word.replace("$HOME", "/home/me") for word in given]
    assert isinstance(compose([*given, *([] if any("model.path" in word for word in line) else ["model.path=a"])]), Composed)


def test_several_overrides_in_one_word_are_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    for word in ("regime=lora regime.rank=8", "regime=lora;regime.rank=8", "regime=lora, regime.rank=8"):
        assert refusal(["plan", *DEMO, word], capsys).endswith("holds several overrides. Write them apart: regime=lora regime.rank=8")


@pytest.mark.parametrize(("word", "right"), [("resume", "resume=last"), ("last", "resume=last"), ("a/run", "resume=a/run")])
def test_a_run_alone_is_told_as_resume(
    word: str, right: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a" / "run").mkdir(parents=True)
    (tmp_path / "a" / "run" / "run.yaml").write_text("")
    assert refusal(["train", word], capsys).endswith(f"To go on with a run, write: {right}")


def test_a_choice_that_the_recipe_of_the_demo_does_not_fit_is_told_with_the_line(capsys: pytest.CaptureFixture[str]) -> None:
    said = refusal(["plan", "regime=full"], capsys)
    assert said == (
        "recipe=demo sets regime.rank, which regime=full does not have (regime=lora and regime=qlora do). "
        "Leave regime as the recipe has it, or write its choices in its place: model=demo data=demo regime=full"
    )
    assert isinstance(compose(["model=demo", "data=demo", "regime=full"]), Composed)


def test_a_sweep_without_m_is_told_with_the_line(capsys: pytest.CaptureFixture[str]) -> None:
    said = refusal(["train", *DEMO, "optim.lr=1e-3,2e-3"], capsys)
    assert "a sweep of several runs. Write: regimen train -m optim.lr=1e-3,2e-3, or regimen plan -m optim.lr=1e-3,2e-3 to see" in said


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("lf.yaml", "lf.yaml does not exist. Name a file of a run (docs/guides/run_files.md), or write key=value."),
        ("conf/mine.yml", "conf/mine.yml does not exist. Name a file of a run"),
        ("ds_config.json", "ds_config.json is a file, not key=value. A file of a run is YAML (docs/guides/run_files.md)"),
    ],
)
def test_a_file_as_an_argument_is_told_where_it_belongs(word: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = refusal(["train", word], capsys)
    assert said.startswith(expected)
    for page in re.findall(r"docs/[\w/]+\.md", said):
        assert (Path(__file__).resolve().parents[3] / page).is_file()


def test_a_value_that_does_not_translate_is_told_with_the_words_of_the_page() -> None:
    assert llamafactory("bf16", "true") == (
        "It is LLaMA-Factory's name for training.precision. Write training.precision=VALUE (`bf16: true` is `training.precision=bf16_amp`). "
        "docs/guides/llamafactory.md translates all names."
    )
    assert "the opposite" in llamafactory("train_on_prompt", "true")
    assert "null: chosen from" in llamafactory("gradient_accumulation_steps", "auto")


@pytest.mark.parametrize(("name", "near"), [("a100", ["a100_40", "a100_80"]), ("H100-80", ["h100_80"]), ("nothing like it", [])])
def test_capitals_and_separators_do_not_count_in_a_choice(name: str, near: list[str]) -> None:
    assert nearest_choices(name, built_in_choices("node")) == near


@pytest.mark.parametrize(("key", "near"), [("optim.rank", "optim.rank"), ("rank", "regime.rank"), ("data.Set", "data.sets"), ("xyzzy", None)])
def test_the_nearest_key_is_one_of_the_same_group_first(key: str, near: str | None) -> None:
    assert nearest_key(key) == near


@pytest.mark.parametrize("value", ["1e-4", "-1", "0.5", "1", "null", "true", "+2", ".5"])
def test_numbers_and_words_of_yaml_are_not_quoted(value: str) -> None:
    assert PLAIN.fullmatch(value)
    assert line_for("optim.lr", value) == f"optim.lr={value}"


@pytest.mark.parametrize("text", ['a"b', "it's", "日本", "a b", "a, b", "a:b", "(x)", "$x", "#1", "100%"])
def test_a_line_gives_back_the_text_that_was_meant(text: str) -> None:
    [word] = shlex.split(line_for("evaluation.generate", text))
    assert compose([word]).evaluation.generate == text


def test_resume_in_a_verb_that_describes_a_run_anew_is_told() -> None:
    with pytest.raises(ConfigError, match=r"^resume goes on with a run, which only `regimen train` and `regimen plan` can do\. Leave it out here\.$"):
        compose(["resume=last"])
