"""YAML that somebody wrote to do harm, or that is not read as it looks: in a file to import, and in a file of one's own run."""

import subprocess
from pathlib import Path

import pytest
import yaml

from conf.run_values import run_as_dict
from launcher.cli import main
from launcher.composition.compose import compose
from launcher.words import on_one_line, shell_line

LAUGHS = "a0: &a0 [lol, lol]\n" + "".join(f"a{depth}: &a{depth} [{', '.join([f'*a{depth - 1}'] * 10)}]\n" for depth in range(1, 12))
MERGES = "m0: &m0 {k: v}\n" + "".join(f"m{depth}: &m{depth} {{<<: [{', '.join([f'*m{depth - 1}'] * 10)}]}}\n" for depth in range(1, 12))
LONG_TEXT = f"a: &a {'x' * 10_000}\nb: [{', '.join(['*a'] * 200)}]\n"
ENDLESS = "a: &a [b, *a]\n"


@pytest.mark.parametrize("verb", ["import", "plan"])
@pytest.mark.parametrize(
    ("text", "said"),
    [
        (LAUGHS, "is longer than 1,000,000 characters once its aliases (`*name`) are filled in"),
        (MERGES, "is longer than 1,000,000 characters"),
        (LONG_TEXT, "is longer than 1,000,000 characters"),
        (ENDLESS, "line 1: an alias (`*name`) stands inside of what it means"),
    ],
    ids=["lists", "merges", "texts", "endless"],
)
def test_aliases_that_stand_for_too_much_are_refused_before_they_are_filled_in(
    verb: str, text: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bomb.yaml"
    path.write_text(f"model_name_or_path: a/b\ndataset: c\n{text}" if verb == "import" and text is not ENDLESS else text)
    assert main([verb, str(path)]) == 2
    assert said in capsys.readouterr().err


def test_an_alias_of_a_plain_value_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "theirs.yaml"
    path.write_text("model_name_or_path: &model a/b\ndataset: c\noutput_dir: *model\n")
    assert main(["import", str(path)]) == 0
    assert "output: a/b" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "model_name_or_path: a/b\ndeepspeed:\n  zero_optimization:\n    stage: 1\n    stage: 3\n",
            "5: deepspeed.zero_optimization.stage stands",
        ),
        ("base_model: a/b\ndatasets:\n  - path: a\n    type: alpaca\n    path: b\n", "line 5: datasets[0].path stands twice"),
        ("model_name_or_path: a/b\nmax_steps: 1:30\n", "line 2: max_steps: 1:30 is 90 to every reader of YAML 1.1. Write 90"),
        ("model_name_or_path: a/b\nwarmup_steps: 010\n", "line 2: warmup_steps: 010 is 8 to every reader"),
        ("base_model: a/b\nlearning_rate: 1:30.5\n", "line 2: learning_rate: 1:30.5 is 90.5 to every reader"),
    ],
)
def test_what_yaml_would_read_in_silence_as_something_else_is_refused(
    text: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "theirs.yaml").write_text(text)
    assert main(["import", str(tmp_path / "theirs.yaml")]) == 2
    assert said in capsys.readouterr().err


def test_a_number_of_a_command_is_not_read_in_silence_as_another_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import", "--", "--model_name_or_path", "a/b", "--max_steps", "1:30"]) == 2
    assert "max_steps: 1:30 is 90" in capsys.readouterr().err


def test_numbers_that_are_what_they_look_like_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "theirs.yaml").write_text("model_name_or_path: a/b\ndataset: c\nrun_name: '1:30'\nmax_steps: 1_000\nseed: 07\n")
    assert main(["import", str(tmp_path / "theirs.yaml")]) == 2  # the name cannot be that of a folder
    said = capsys.readouterr().err
    assert "training.max_steps: 1000" in said
    assert "training.seed: 7" in said
    assert "1 of the arguments" in said


def test_a_table_of_ones_own_file_has_each_key_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "my.yaml").write_text("model: local\nmodel.architecture:\n  model_type: llama\n  model_type: gpt2\n")
    assert main(["plan", str(tmp_path / "my.yaml")]) == 2
    assert "line 4: model.architecture.model_type stands twice" in capsys.readouterr().err


def test_json_may_be_indented_with_tabs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "theirs.json").write_text('{\n\t"model_name_or_path": "a/b",\n\t"dataset": "c"\n}\n')
    assert main(["import", str(tmp_path / "theirs.json")]) == 0
    assert "path: a/b" in capsys.readouterr().out


HOSTILE = r'"\e]0;mine\a\e[31m\nnext: \u202e line"'


@pytest.mark.parametrize("text", [
    f"model_name_or_path: a/b\ndataset: c\n{HOSTILE}: 1\n",
    f"model_name_or_path: a/b\ndataset: c\n{HOSTILE}: null\n",
    f"model_name_or_path: a/b\ndataset: c\nfinetuning_type: {HOSTILE}\n",
    f"model_name_or_path: a/b\ndataset: c\ntemplate: {HOSTILE}\n",
    f"model_name_or_path: {HOSTILE}\ndataset: [{HOSTILE}]\n",
    f"base_model: a/b\ndatasets: [{{path: {HOSTILE}, type: {HOSTILE}}}]\nchat_template: {HOSTILE}\n",
    f"model_name_or_path: a/b\ndataset: c\n{HOSTILE}: {{ {HOSTILE}: 1, {HOSTILE}: 2}}\n",
    f"model_name_or_path: a/b\nexport_dir: {HOSTILE}\n",
    f"model_name_or_path: a/b\ninfer_backend: vllm\ndefault_system: {HOSTILE}\n",
])  # fmt: skip
def test_no_control_character_of_a_file_reaches_the_terminal(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "theirs.yaml").write_text(text)
    main(["import", str(tmp_path / "theirs.yaml")])
    printed = "".join(capsys.readouterr())
    assert printed
    assert not set(printed) & set("\x1b\x07\u202e")
    assert not [line for line in printed.splitlines() if line.startswith("next: ")]


def test_a_word_with_control_characters_is_pasted_as_it_is() -> None:
    words = ["plain", "it's", "two\nlines", "\x1b[31m\x07'\\ \x7f\x85\u202e\U000e0001", "中文 \u3000"]
    line = shell_line(words)
    assert line == on_one_line(line)
    utf8 = {"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"}
    ran = subprocess.run(["bash", "-c", f"printf '%s\\0' {line}"], capture_output=True, check=True, env=utf8)
    assert ran.stdout.decode().split("\0")[:-1] == words


@pytest.mark.parametrize("text", [
    "!!timestamp abc", "!!int ''", "!!bool maybe", f"1{':00' * 200}.0", f"1{'0' * 400}", "0_", f"0{'7' * 5000}",
])  # fmt: skip
def test_a_value_that_is_none_of_its_tag_or_too_large_is_refused_and_is_no_bug(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "theirs.yaml").write_text(f"model_name_or_path: a/b\ndataset: c\nlearning_rate: {text}\n")
    expected = 0 if text == "0_" else 2  # 0, which a rate may be
    assert main(["import", str(tmp_path / "theirs.yaml")]) == expected
    assert main(["import", "--", "--model_name_or_path", "a/b", "--dataset", "c", "--learning_rate", text]) == expected
    assert "bug" not in capsys.readouterr().err


def test_a_recorded_run_with_a_tag_that_means_nothing_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recorded = yaml.safe_dump(run_as_dict(compose([])))
    for value, said in (("!foo 1", "the tag !foo is not read here"), ("!!timestamp x", "is not YAML: "), ("!!int ''", "is not YAML: ")):
        (tmp_path / "run.yaml").write_text(recorded.replace("seed: 42", f"seed: {value}"))
        assert main(["plan", str(tmp_path / "run.yaml")]) == 2
        assert said in capsys.readouterr().err


def test_two_merges_of_one_table_are_both_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "theirs.yaml").write_text("model_name_or_path: a/b\ndataset: c\n<<: {seed: 7}\n<<: {max_steps: 3}\n")
    assert main(["import", str(tmp_path / "theirs.yaml")]) == 0
    said = capsys.readouterr().out
    assert "training.seed: 7" in said
    assert "training.max_steps: 3" in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('name: "\\ud800"\n', "line 1: half a character stands here"),
        ("training.seed: !foo 1\n", "line 1: the tag !foo is not read here"),
        ("training.seed: !!python/object/apply:os.system [x]\n", "line 1: the tag !!python/object/apply:os.system is not read here"),
        ("? [a]\n: 1\n", "line 1: a list or a table stands where a key must be"),
        ("training:\n  <<: {seed: 1}\n", "line 2: `<<` is not read here"),
        (f"training.seed: {'7' * 5000}\n", "holds a number of more than 300 digits"),
        (f"optim.lr: {'7' * 400}\n", "holds a number of more than 300 digits"),
    ],
)
def test_what_a_file_of_a_run_does_not_read_is_named(text: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    assert main(["plan", str(path), "model=demo", "data=demo", "node=cpu"]) == 2
    told = capsys.readouterr().err
    assert said in told
    assert len(told) < 500


def test_a_character_that_json_writes_in_two_halves_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "theirs.json"
    path.write_text('{"model_name_or_path": "a/b", "dataset": "c", "output_dir": "\\ud83d\\ude00"}')
    main(["import", str(path)])
    assert "half a character" not in capsys.readouterr().err
