"""What can only fail is found by `plan`, and what it finds is what the ranks would end with."""

import gzip
import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from conf.schema import Run
from conf.stages import stage_row
from launcher.cli import main
from launcher.facts.node import settled_node
from launcher.gate.settle import settled
from tests.described import composed, described
from trainers.data.prepare.selection import split
from trainers.data.samples.sets import read_sets
from trainers.errors import DataError
from trainers.model.tokenizer import byte_tokenizer, load_tokenizer

BASE = ("model=demo", "node=cpu", "data=files", "data.cutoff=64", "regime=lora", "sharding=ddp", "training.micro_batch=2", "evaluation.micro_batch=2")
ANSWER = {"instruction": "q", "input": "", "output": "a"}
PAIR = {"prompt": "q", "chosen": "a", "rejected": "b"}
TURNS = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
CONVERSATION = "conversations that end with an answer"
Refused = Callable[..., str]


def lines(*records: object) -> str:
    return "".join(f"{json.dumps(record)}\n" for record in records)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One file of each kind that sets come in, of eight records."""
    texts = {
        "answers.jsonl": lines(*[ANSWER] * 8),
        "pairs.jsonl": lines(*[PAIR] * 8),
        "texts.txt": "some words\n" * 8,
        "prompts.jsonl": lines(*[{"prompt": "q"}] * 8),
        "odd.jsonl": lines(*[{"foo": "q", "bar": "a"}] * 8),
        "list.json": json.dumps([ANSWER] * 8),
        "lines.json": lines(*[ANSWER] * 8),
        "object.json": json.dumps(ANSWER),
        "table.csv": "instruction,output\n" + "q,a\n" * 8,
        "odd.csv": "question,answer\n" + "q,a\n" * 8,
        "blank_then.jsonl": "\n\n" + lines(*[PAIR] * 8),
        "dataset_info.json": json.dumps(
            {
                "misspelt": {"file_name": "answers.jsonl", "columns": {"prompt": "question", "response": "output"}},
                "ranked": {"file_name": "answers.jsonl", "ranking": True},
                "openai": {"file_name": "turns.jsonl", "formatting": "openai"},
                "whole_pairs": {"file_name": "whole_pairs.jsonl", "formatting": "openai", "ranking": True},
            }
        ),
        "turns.jsonl": lines(*[TURNS] * 8),
        "whole_pairs.jsonl": lines(*[{"chosen": TURNS["messages"], "rejected": [TURNS["messages"][0], {"role": "assistant", "content": "b"}]}] * 8),
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "pairs.jsonl.gz").write_bytes(gzip.compress(lines(*[PAIR] * 8).encode()))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([PAIR] * 8), tmp_path / "pairs.parquet")
    return tmp_path


@pytest.fixture
def refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> Refused:
    """The message with which plan refuses a run, and train in the same words before it has made a folder."""

    def ask(*overrides: str, code: int = 2) -> str:
        given = (*BASE, f"data.folder={folder}", f"output={folder / 'outputs'}", *overrides)
        assert main(["plan", *given]) == code
        message = capsys.readouterr().err
        assert main(["train", *given]) == code
        assert capsys.readouterr().err == message
        assert not (folder / "outputs").exists()
        assert message.count("regimen:") == 1
        return message

    return ask


@pytest.fixture
def permitted(folder: Path) -> Callable[..., bool]:
    return lambda *overrides: main(["plan", *BASE, f"data.folder={folder}", f"output={folder / 'outputs'}", *overrides]) == 0


def ranks_refuse(folder: Path, *overrides: str) -> None:
    """The trainers read the same sets and refuse them too: the launcher refuses nothing that could have been trained."""
    run = described(*BASE, f"data.folder={folder}", *overrides)
    with pytest.raises(DataError):
        read_all(run)


def read_all(run: Run) -> None:
    for sets in (run.data.sets, run.data.evaluation_sets):
        read_sets(replace(run.data, sets=sets or run.data.sets), stage_row(run.stage.name).reads)


SETS: list[tuple[Sequence[str], str]] = [
    (("data.sets=[answers.jsonl]", "stage=dpo"), f"data.sets: answers.jsonl holds {CONVERSATION}, but stage=dpo reads prompts with"),
    (("data.sets=[answers.jsonl]", "stage=rm"), "This set suits stage=sft, ppo, grpo."),
    (("data.sets=[answers.jsonl]", "stage=kto"), "but stage=kto reads answers labelled good or bad"),
    (("data.sets=[answers.jsonl]", "stage=pt"), "but stage=pt reads plain text"),
    (("data.sets=[texts.txt]",), "data.sets: texts.txt holds plain text, but stage=sft reads"),
    (("data.sets=[prompts.jsonl]",), "data.sets: prompts.jsonl holds prompts alone"),
    (("data.sets=[pairs.jsonl.gz]", "stage=pt"), "data.sets: pairs.jsonl.gz holds prompts with a chosen and a rejected answer"),
    (("data.sets=[pairs.parquet]", "stage=pt"), "data.sets: pairs.parquet holds prompts with a chosen and a rejected answer"),
    (("data.sets=[blank_then.jsonl]", "stage=pt"), "data.sets: blank_then.jsonl holds prompts with"),
    (("data.sets=[turns.jsonl]", "stage=dpo"), f"data.sets: turns.jsonl holds {CONVERSATION}"),
    (("data.sets=[table.csv]", "stage=dpo"), f"data.sets: table.csv holds {CONVERSATION}"),
    (("data.sets=[list.json]", "stage=dpo"), f"data.sets: list.json holds {CONVERSATION}"),
    (("data.sets=[openai]", "stage=dpo"), f"data.sets: openai holds {CONVERSATION}"),
    (("data.sets=[odd.jsonl]",), "odd.jsonl, line 1: the columns (bar, foo) fit no known layout"),
    (("data.sets=[odd.csv]",), "odd.csv, line 2: the columns (answer, question) fit no known layout"),
    (("data.sets=[lines.json]",), "lines.json holds one object per line. Name it .jsonl."),
    (
        ("data.sets=[object.json]",),
        "object.json holds an object, not a list of records. Put the records into one list, or one on each line of a .jsonl file.",
    ),
    (("data.sets=[misspelt]",), "answers.jsonl, line 1: there is no column question, and the entry misspelt of the registry needs one (as prompt)."),
    (("data.sets=[ranked]", "stage=dpo"), "answers.jsonl, line 1: there is no column chosen, and the entry ranked of the registry needs one"),
    (("data.sets=[answers.jsonl]", "data.evaluation_sets=[texts.txt]"), "data.evaluation_sets: texts.txt holds plain text, but stage=sft reads"),
    (
        ("data.sets=[answers.jsonl]", "data.evaluation_sets=[absent.jsonl]"),
        "absent.jsonl does not exist. Fix data.sets, data.folder or the registry.",
    ),
    (("data.sets=[answers.jsonl]", "data.evaluation_sets=[a/b/c]"), "a/b/c"),
    (("data.sets=[a/b/c]",), "a/b/c"),
    (("data.sets=[answers.jsonl]", "data.folder=nowhere"), "answers.jsonl does not exist."),
    (
        ("data.sets=[answers.jsonl,texts.txt]", "data.mixing=interleave_under", "training.max_steps=3"),
        "data.sets: texts.txt holds plain text, but stage=sft reads",
    ),
    (("data.sets=[pairs.jsonl]", "stage=pt", "data.streaming=true", "training.max_steps=3"), "data.sets: pairs.jsonl holds prompts with"),
]


@pytest.mark.parametrize(("overrides", "said"), SETS)
def test_a_set_that_the_stage_cannot_read_is_refused_by_its_first_record(
    overrides: tuple[str, ...], said: str, folder: Path, refused: Refused
) -> None:
    assert said in refused(*overrides, code=4)
    ranks_refuse(folder, *overrides)


@pytest.mark.parametrize(
    "overrides",
    [
        ("data.sets=[pairs.jsonl]",),
        ("data.sets=[pairs.jsonl]", "stage=kto"),
        ("data.sets=[pairs.parquet,pairs.jsonl.gz]", "stage=dpo"),
        ("data.sets=[whole_pairs]", "stage=dpo"),
        ("data.sets=[answers.jsonl,turns.jsonl,openai,table.csv,list.json]", "data.evaluation_sets=[pairs.jsonl]"),
        ("data.sets=[texts.txt]", "stage=pt"),
    ],
)
def test_a_set_that_the_stage_can_read_is_permitted(overrides: tuple[str, ...], permitted: Callable[..., bool]) -> None:
    assert permitted(*overrides)


def test_where_bad_rows_are_dropped_the_first_record_decides_nothing(folder: Path, permitted: Callable[..., bool]) -> None:
    (folder / "answers.jsonl").write_text(lines({"instruction": "q"}, *[ANSWER] * 30))
    (folder / "dataset_info.json").write_text(json.dumps({"mine": {"file_name": "answers.jsonl"}}))
    assert not permitted("data.sets=[mine]")
    assert permitted("data.sets=[mine]", "data.on_bad=drop")


def test_a_broken_first_record_is_left_to_the_ranks_which_list_all_of_them(folder: Path, permitted: Callable[..., bool]) -> None:
    (folder / "answers.jsonl").write_text("{broken\n" + lines(*[ANSWER] * 30))
    assert permitted("data.sets=[answers.jsonl]")
    (folder / "list.json").write_text("{broken")
    assert permitted("data.sets=[list.json]")


# 8 x 0.05 = 0.4 rounds to none to evaluate on; 8 x 0.96 = 7.68 to all of them
@pytest.mark.parametrize(("share", "said"), [(0.05, "leaves none to evaluate on"), (0.96, "leaves none to train on")])
def test_a_share_that_leaves_nothing_is_refused(share: float, said: str, folder: Path, refused: Refused) -> None:
    assert f"data.validation_share={share} of 8 samples {said}" in refused("data.sets=[answers.jsonl]", f"data.validation_share={share}", code=4)
    with pytest.raises(DataError, match=said):
        split(8, described(*BASE, "data.sets=[x]", f"data.validation_share={share}").data, seed=0)


# Tokenizers.


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A tokenizer's folder."""
    made = tmp_path / "base"
    byte_tokenizer().save_pretrained(made)
    return made


def without_template(base: Path) -> None:
    (base / "chat_template.jinja").unlink(missing_ok=True)
    config = json.loads((base / "tokenizer_config.json").read_text())
    (base / "tokenizer_config.json").write_text(json.dumps({key: value for key, value in config.items() if key != "chat_template"}))


def ranks_refuse_tokenizer(*overrides: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        load_tokenizer(described(*BASE, "data.sets=[x]", *overrides))


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("data.template=nosuch",), "data.template=nosuch is not a template. Choose one of: alpaca, baichuan,"),
        (
            ("data.template=llama3",),
            "data.template=llama3 writes <|end_header_id|>, <|eot_id|>, <|start_header_id|>, which this tokenizer would split",
        ),
        (("model.tokenizer=null",), "model.tokenizer and model.path are both null"),
        (("model.tokenizer=./absent",), "model.tokenizer=./absent is not a folder."),
        (("model.tokenizer=a/b/c",), "model.tokenizer=a/b/c is neither a folder nor a hub id"),
        (("'model.added_tokens=[\"<|im_end|>\"]'",), "model.added_tokens: <|im_end|> is a token of this tokenizer already."),
        (("model.architecture.vocab_size=259",), "model.tokenizer uses 260 ids, but the model has 259 embeddings."),
    ],
)
def test_a_tokenizer_that_cannot_do_it_is_refused(overrides: tuple[str, ...], said: str, refused: Refused) -> None:
    overrides = tuple(override.strip("'") for override in overrides)
    assert said in refused("data.sets=[answers.jsonl]", *overrides)
    ranks_refuse_tokenizer(*overrides)


def test_a_folder_without_a_chat_template_is_refused_where_one_is_needed(base: Path, refused: Refused, permitted: Callable[..., bool]) -> None:
    given = ("data.sets=[answers.jsonl]", f"model.tokenizer={base}")
    assert permitted(*given)
    without_template(base)
    said = f"model.tokenizer={base}: its tokenizer has no chat template, and stage=sft needs one. Set data.template to one of alpaca, baichuan,"
    assert said in refused(*given)
    ranks_refuse_tokenizer(*given)
    assert permitted(*given, "data.template=chatml")
    assert permitted("data.sets=[texts.txt]", f"model.tokenizer={base}", "stage=pt")
    assert "and evaluation.generate needs one" in refused("data.sets=[texts.txt]", f"model.tokenizer={base}", "stage=pt", "evaluation.generate=Hi")


@pytest.mark.parametrize("where", ["chat_template.jinja", "additional_chat_templates/tool_use.jinja", "tokenizer_config.json"])
def test_a_chat_template_is_found_where_transformers_finds_it(where: str, base: Path, permitted: Callable[..., bool]) -> None:
    without_template(base)
    if where.endswith(".json"):
        config = json.loads((base / where).read_text())
        (base / where).write_text(json.dumps({**config, "chat_template": [{"name": "default", "template": "{{ messages }}"}]}))
    else:
        (base / where).parent.mkdir(exist_ok=True)
        (base / where).write_text("{{ messages }}")
    given = ("data.sets=[answers.jsonl]", f"model.tokenizer={base}")
    assert permitted(*given)
    assert load_tokenizer(described(*BASE, *given)).chat_template


@pytest.mark.parametrize("template", ["chatml", "llama3", "qwen", "gemma", "alpaca", "phi"])
def test_the_tokens_of_a_template_are_found_in_a_folder_as_the_ranks_find_them(
    template: str, base: Path, permitted: Callable[..., bool], capsys: pytest.CaptureFixture[str]
) -> None:
    given = ("data.sets=[answers.jsonl]", f"model.tokenizer={base}", f"data.template={template}")
    if permitted(*given):
        load_tokenizer(described(*BASE, *given))
    else:
        assert f"data.template={template} writes" in capsys.readouterr().err
        ranks_refuse_tokenizer(*given)


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "tokenizer_config.json").write_text("{}")
    assert "none: the folder holds no tokenizer. Copy its files there" in refused("data.sets=[answers.jsonl]", f"model.tokenizer={tmp_path / 'none'}")


def in_one_line(capsys: pytest.CaptureFixture[str]) -> str:
    """What was printed, without the breaks of its lines."""
    return " ".join(capsys.readouterr().out.split())


def test_what_is_not_on_this_machine_is_noted(capsys: pytest.CaptureFixture[str]) -> None:
    given = ("plan", "model=llama3.1_8b", "data=demo", "node=h100_80", "regime=lora")
    assert main(given) == 0
    note = "note: model.path=meta-llama/Llama-3.1-8B is not on this machine, so it is not known here whether its tokenizer has a chat template"
    assert note in in_one_line(capsys)
    assert main([*given, "data.template=llama3"]) == 0
    assert "chat template" not in capsys.readouterr().out


# Where runs are kept.


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("{folder}/answers.jsonl", "answers.jsonl is a file. Set output= to a folder."),
        ("{folder}/answers.jsonl/below", "answers.jsonl is a file. Set output= to a folder."),
        ("/proc", "/proc is made by the kernel and keeps no files. Set output= to a folder on a disk."),
        ("/proc/absent/below", "/proc is made by the kernel and keeps no files."),
    ],
)
def test_an_output_that_no_run_can_use_is_refused_by_plan_as_by_train(output: str, said: str, folder: Path, refused: Refused) -> None:
    assert said in refused("data.sets=[answers.jsonl]", f"output={output.format(folder=folder)}", code=74)


def test_a_file_in_place_of_the_folder_of_a_name_is_refused(folder: Path, refused: Refused) -> None:
    assert "answers.jsonl is a file." in refused("data.sets=[answers.jsonl]", f"output={folder}", "name=answers.jsonl", code=74)


# Folders of models.


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole model of the demo's shape, as save_pretrained writes it."""
    from transformers import AutoConfig, AutoModelForCausalLM

    made = tmp_path_factory.mktemp("model")
    architecture = described("model=demo", "data=demo", "node=cpu").model.architecture
    AutoModelForCausalLM.from_config(AutoConfig.for_model(**architecture)).save_pretrained(made)
    byte_tokenizer().save_pretrained(made)
    return made


@pytest.fixture
def own(model: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(model, tmp_path / "own"))


def of(path: Path) -> tuple[str, ...]:
    return ("model=local", f"model.path={path}", "data.sets=[answers.jsonl]")


def as_pickle(folder: Path, name: str = "pytorch_model.bin") -> None:
    import safetensors.torch
    import torch

    weights = safetensors.torch.load_file(folder / "model.safetensors")
    torch.save(weights, folder / name)
    (folder / "model.safetensors").unlink()


def test_weights_that_could_run_code_are_refused_with_a_command_for_them(own: Path, refused: Refused, permitted: Callable[..., bool]) -> None:
    as_pickle(own)
    message = refused(*of(own))
    assert f"model.path={own} holds its weights as pytorch_model.bin. Such a file can run code and is not loaded." in message
    [_, command] = message.strip().split("convert it once: ")
    assert command.startswith("python -c ")
    subprocess.run([sys.executable, "-c", shlex.split(command)[2]], check=True, capture_output=True)
    assert permitted(*of(own))


def test_a_folder_without_weights_is_refused_unless_they_are_random(own: Path, refused: Refused, permitted: Callable[..., bool]) -> None:
    (own / "model.safetensors").unlink()
    assert f"model.path={own} holds no weights (model.safetensors, or model.safetensors.index.json and its files)." in refused(*of(own))
    assert permitted(*of(own), "model.init=random")


def test_an_adapter_in_place_of_a_model_is_refused(own: Path, tmp_path: Path, refused: Refused) -> None:
    """Beside a config.json too: transformers would load the adapter's base then."""
    (own / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "some/base", "peft_type": "LORA"}))
    message = refused(*of(own))
    assert f"model.path={own} holds an adapter, not a whole model." in message
    assert "merge it into its base first (merge_and_unload of PEFT)" in message
    assert f"set regime=lora, regime.adapter={own}, and model.path to its base, some/base." in message


@pytest.mark.parametrize("inside", ["", "model"])
def test_a_run_that_trained_an_adapter_is_told_to_be_exported(inside: str, own: Path, tmp_path: Path, refused: Refused) -> None:
    run_folder = tmp_path / "run"
    (run_folder / "model").mkdir(parents=True)
    (run_folder / "run.yaml").write_text("")
    (run_folder / "model" / "adapter_config.json").write_text("{}")
    message = refused(*of(run_folder / inside))
    assert f"model.path={run_folder / inside} holds an adapter" in message
    assert f"(`regimen export {run_folder}`)" in message
    assert f"regime.adapter={run_folder / 'model'}" in message


def test_a_run_folder_in_place_of_its_model_is_refused(own: Path, tmp_path: Path, refused: Refused, permitted: Callable[..., bool]) -> None:
    run_folder = tmp_path / "run"
    run_folder.mkdir()
    (run_folder / "run.yaml").write_text("")
    assert f"model.path={run_folder} is a run that has not finished, so it has no model yet." in refused(*of(run_folder))
    own.rename(run_folder / "model")
    assert f"model.path={run_folder} is a run folder. Set model.path={run_folder / 'model'}, which holds its model." in refused(*of(run_folder))
    assert permitted(*of(run_folder / "model"))


def test_the_folder_of_another_machine_is_noted_and_that_of_this_one_refused(refused: Refused, capsys: pytest.CaptureFixture[str]) -> None:
    given = ("model=llama3.1_8b", "model.path=/absent/llama", "data.sets=[answers.jsonl]")
    assert "model.path=/absent/llama is not a folder." in refused(*given, "node=cpu")
    assert "model.path=/absent/llama is not a folder." in refused(*given, "node=h100_80", "cluster=slurm")
    assert main(["plan", *given[:2], "data=demo", "node=h100_80", "regime=lora"]) == 0
    assert "note: model.path=/absent/llama is not on this machine, so its files were not looked at." in in_one_line(capsys)


def test_the_home_folder_is_written_out_for_the_ranks(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(own.parent))
    given = composed(*BASE, "model=local", "model.path=x", "data.sets=[x]")  # the command line refuses a ~, and YAML files may hold one
    run = settled(replace(given, model=replace(given.model, path="~/own", tokenizer="~/own")), settled_node(given.node, 0))
    assert (run.model.path, run.model.tokenizer) == (str(own), str(own))


def test_a_model_without_a_tokenizer_is_refused(own: Path, refused: Refused, permitted: Callable[..., bool]) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (own / name).unlink()
    assert f"model.path={own}: the folder holds no tokenizer." in refused(*of(own))
    assert permitted(*of(own), "model.tokenizer=bytes")
