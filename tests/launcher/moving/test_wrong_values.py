"""Values of other types and out of range, tokens, and keys that no line names: of LLaMA-Factory, axolotl, and files that train nothing."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from launcher.cli import main
from launcher.moving.axolotl import AXOLOTL
from launcher.moving.draft import Draft
from launcher.moving.program import Program
from launcher.moving.translate import LLAMA_FACTORY
from launcher.verbs.import_run import report
from tests.launcher.moving.llamafactory_files import FILES, arguments

AXOLOTL_FILE: dict[str, Any] = {
    **{"base_model": "a/b", "adapter": "lora", "lora_r": 8, "lora_alpha": 16, "lora_target_linear": True, "learning_rate": 2e-4},
    "datasets": [{"path": "c/d", "type": "alpaca"}],
}
EXPORT = {"model_name_or_path": "a/b", "adapter_name_or_path": "saves/a", "template": "llama3", "export_dir": "merged"}
PREDICT = {"model_name_or_path": "a/b", "template": "llama3", "stage": "sft", "do_predict": True, "eval_dataset": "identity"}
CHAT = {"model_name_or_path": "a/b", "template": "llama3", "infer_backend": "huggingface"}
TOKEN = "hf_" + 30 * "a"

# What is changed in which file, and what is said of it.
WRONG: list[tuple[Mapping[str, Any], dict[str, Any], str]] = [
    (arguments({}), {"warmup_steps": -5}, "warmup_steps: optim.warmup=-5.0 is out of range. It must be at least 0."),
    (arguments({}), {"learning_rate": -1}, "learning_rate: optim.lr=-1.0 is out of range"),
    (arguments({}), {"learning_rate": "nan"}, "learning_rate: nan is not a finite number"),
    (arguments({}), {"lora_rank": 2.5}, "lora_rank: regime.rank=2.5 is not possible. It must be a whole number"),
    (arguments({}), {"lora_rank": 0}, "lora_rank: regime.rank=0 is out of range"),
    (arguments({}), {"per_device_train_batch_size": 0}, "per_device_train_batch_size: training.micro_batch=0 is out of range"),
    (arguments({}), {"cutoff_len": "long"}, "cutoff_len: 'long' is not a number"),
    (arguments({}), {"bf16": "maybe"}, "bf16: 'maybe' is neither true nor false"),
    (arguments({}), {"packing": 3}, "packing: 3 is neither true nor false"),
    (arguments({}), {"output_dir": 1.5}, "output_dir: it needs a text, and 1.5 is none. Put it in quotes"),
    (arguments({}), {"template": True}, "template: it needs a text, and true is none"),
    (arguments({}), {"dataset": [1.5]}, "dataset: it needs texts, and 1.5 is none"),
    (arguments({}), {"dataset": [["a"]]}, "dataset: it needs texts"),
    (arguments({}), {"model_revision": True}, "model_revision: it needs a text"),
    (arguments({}), {"run_name": "a/b"}, "run_name: name='a/b' cannot be the name of a folder"),
    (arguments({}), {"report_to": ["wandb", True]}, "report_to: it needs texts, and true is none"),
    (arguments({}), {"seed": -3, "save_total_limit": 0}, "save_total_limit: checkpoint.keep=0 is out of range"),
    (arguments({}), {"hub_model_id": TOKEN}, "hub_model_id: its value looks like an access token (a Hugging Face token)"),
    (arguments({}), {"model_name_or_path": f"https://u:{TOKEN}@hub.org/a"}, "model_name_or_path: its value looks like an access token"),
    (AXOLOTL_FILE, {"warmup_steps": -5}, "warmup_steps: optim.warmup=-5.0 is out of range. It must be at least 0."),
    (AXOLOTL_FILE, {"micro_batch_size": 2.5}, "micro_batch_size: training.micro_batch=2.5 is not possible"),
    (AXOLOTL_FILE, {"use_wandb": 7}, "use_wandb: 7 is neither true nor false"),
    (AXOLOTL_FILE, {"wandb_project": True}, "wandb_project: it needs a text, and true is none"),
    (AXOLOTL_FILE, {"output_dir": 1.5}, "output_dir: it needs a text, and 1.5 is none"),
    (AXOLOTL_FILE, {"sequence_len": [512]}, "sequence_len: it needs one value, and is a list"),
    (AXOLOTL_FILE, {"base_model": 1.5}, "base_model: it names no model"),
    (AXOLOTL_FILE, {"lora_model_dir": {"a": 1}}, "lora_model_dir: it needs one value, and is a table"),
    (AXOLOTL_FILE, {"hub_model_id": TOKEN}, "hub_model_id: its value looks like an access token"),
    (
        AXOLOTL_FILE,
        {"datasets": [{"path": "c/d", "type": "alpaca"}, {"path": "e/f", "type": "chat_template"}]},
        "datasets: a run has one template, and sets of the types alpaca, chat_template are written in different ones",
    ),
    (AXOLOTL_FILE, {"wandb_project": "one", "comet_project_name": "two"}, "comet_project_name: a run has one name of a project"),
    (EXPORT, {"export_dir": True}, "export_dir: it needs a text, and true is none"),
    (EXPORT, {"export_dir": ["a"]}, "export_dir: it needs one value, and is a list"),
    (EXPORT, {"export_size": "big"}, "export_size: 'big' is not a number"),
    (EXPORT, {"export_size": -2}, "export_size: "),
    (EXPORT, {"export_hub_model_id": "mine"}, "export_hub_model_id: --push mine is not a hub repository. Use the form owner/name."),
    (EXPORT, {"export_hub_model_id": TOKEN}, "export_hub_model_id: its value looks like an access token"),
    (EXPORT, {"export_hub_model_id": 5.5}, "export_hub_model_id: it needs a text"),
    (PREDICT, {"max_samples": 0}, "max_samples: data.max_samples=0 is out of range"),
    (PREDICT, {"cutoff_len": 10.5}, "cutoff_len: 10.5 is not a whole number"),
    (PREDICT, {"per_device_eval_batch_size": -1}, "per_device_eval_batch_size: --batch -1 is out of range"),
    (PREDICT, {"temperature": "warm"}, "temperature: 'warm' is not a number"),
    (PREDICT, {"eval_dataset": [True]}, "eval_dataset: it needs texts"),
    (PREDICT, {"do_sample": "perhaps"}, "do_sample: 'perhaps' is neither true nor false"),
    (CHAT, {"top_p": 3}, "top_p: --top-p 3 is out of range. It must be above 0 and at most 1."),
    (CHAT, {"max_new_tokens": True}, "max_new_tokens: True is not a number"),
    (CHAT, {"default_system": 1.5}, "default_system: it needs a text"),
    (CHAT, {"seed": -1}, "seed: --seed -1 is out of range"),
]


@pytest.mark.parametrize(("given", "changed", "said"), WRONG, ids=[said[:60] for _, _, said in WRONG])
def test_a_value_that_is_none_of_its_key_is_refused_under_the_name_of_its_argument(
    given: Mapping[str, Any], changed: dict[str, Any], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, to = tmp_path / "theirs.yaml", tmp_path / "ours.yaml"
    path.write_text(yaml.safe_dump({**given, **changed}))
    training = given not in (EXPORT, PREDICT, CHAT)
    assert main(["import", str(path), *(["--save", str(to)] if training else [])]) == 2
    printed = capsys.readouterr()
    assert said in printed.err
    assert "cannot mean the same here" in printed.err
    assert not to.exists()
    assert "regimen export" not in printed.out
    assert TOKEN not in printed.err + printed.out


def test_every_wrong_value_is_named_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "theirs.yaml"
    path.write_text(yaml.safe_dump(arguments({"seed": -3, "save_total_limit": 0, "lora_rank": 2.5, "bf16": "maybe"})))
    assert main(["import", str(path)]) == 2
    said = capsys.readouterr().err
    assert "4 of the arguments cannot mean the same here" in said
    assert all(f"  {name}: " in said for name in ("seed", "save_total_limit", "lora_rank", "bf16"))


SOME = {name: (LLAMA_FACTORY, meant.arguments) for name, meant in [*FILES.items()][::6]} | {"axolotl": (AXOLOTL, AXOLOTL_FILE)}


@pytest.mark.parametrize(("program", "given"), SOME.values(), ids=SOME)
def test_every_key_of_the_new_file_stands_in_a_line(program: Program, given: dict[str, Any]) -> None:
    draft = program.translate(given)
    said = "\n".join(report(draft, program.name))
    assert [key for key in draft.values if f"{key}: " not in said] == []


def axolotl(**more: Any) -> Draft:
    return AXOLOTL.translate({**AXOLOTL_FILE, **more})


def test_what_axolotl_does_by_itself_is_a_line_too() -> None:
    said = report(axolotl(), "axolotl")[-1]
    assert "data.on_long: drop" in said
    assert "data.bad_share: 1.0" in said


def test_the_name_of_a_project_switches_its_tracker_on_there() -> None:
    draft = axolotl(use_wandb=False, wandb_project="mine")
    assert (draft.values["tracking"], draft.values["tracking.project"]) == ("wandb", "mine")
    assert draft.outcomes["use_wandb"].said == "wandb_project is stated, and switches it on there"
    draft = axolotl(mlflow_experiment_name="mine", use_comet=True, comet_project_name="mine")
    assert (draft.values["tracking"], draft.values["tracking.also"], draft.values["tracking.project"]) == ("mlflow", ["comet"], "mine")
    assert "tracking.project: mine" in draft.outcomes["comet_project_name"].said
    assert axolotl(use_wandb=False).outcomes["use_wandb"].said == "off, as here"
    assert axolotl(wandb_entity="lab").outcomes["wandb_entity"].said == "there is no run at wandb"


@pytest.mark.parametrize(
    ("given", "command"),
    [
        ({"dataset": "identity,alpaca_en_demo", "eval_dataset": None}, "--data identity --data alpaca_en_demo"),
        ({"ddp_timeout": 180000000, "overwrite_cache": True, "max_samples": 50}, "data.max_samples=50"),
    ],
)
def test_a_file_of_prediction_is_one_by_whichever_name_it_calls_its_sets(
    given: dict[str, Any], command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "theirs.yaml").write_text(yaml.safe_dump({**PREDICT, **given}))
    assert main(["import", str(tmp_path / "theirs.yaml")]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("regimen predict RUN ")
    assert command in printed


@pytest.mark.parametrize("more", [{}, {"infer_backend": "vllm", "vllm_enforce_eager": True}])
def test_a_file_that_names_a_model_alone_is_one_of_chat(more: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """inference/llama3.yaml@383cae7 and inference/llama3_vllm.yaml@383cae7."""
    (tmp_path / "theirs.yaml").write_text(yaml.safe_dump({"model_name_or_path": "a/b", "template": "llama3", "trust_remote_code": True, **more}))
    assert main(["import", str(tmp_path / "theirs.yaml")]) == 0
    assert capsys.readouterr().out.startswith("regimen chat RUN ")


FOUND = {
    "offload among words": (AXOLOTL, {**AXOLOTL_FILE, "fsdp": "full_shard auto_wrap offload"}, "fsdp", "offload is not possible with FSDP"),
    "another device": (
        AXOLOTL,
        {**AXOLOTL_FILE, "deepspeed": {"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "nvme"}}}},
        "deepspeed",
        "offloading to nvme is not possible",
    ),
    "all steps": (LLAMA_FACTORY, {"warmup_ratio": 1.0}, "warmup_ratio", "1 is no share of the steps"),
    "all steps there": (AXOLOTL, {**AXOLOTL_FILE, "warmup_ratio": 10}, "warmup_ratio", "10 is no share of the steps"),
    "no end": (LLAMA_FACTORY, {"pissa_iter": float("inf"), "pissa_init": True}, "pissa_iter", "inf is not a finite number"),
    "no number": (LLAMA_FACTORY, {"pissa_iter": float("nan"), "pissa_init": True}, "pissa_iter", "nan is not a finite number"),
    "no precision": (AXOLOTL, {**AXOLOTL_FILE, "bf16": "banana"}, "bf16", "'banana' is neither true nor false"),
    "two precisions": (AXOLOTL, {**AXOLOTL_FILE, "bf16": True, "float32": True}, "bf16", "float32 is on too"),
    "the other direction": (
        LLAMA_FACTORY,
        {"val_size": 0.1, "eval_strategy": "steps", "eval_steps": 10, "metric_for_best_model": "eval_loss", "greater_is_better": True},
        "greater_is_better",
        "the lower value is the better one",
    ),
}


@pytest.mark.parametrize(("program", "given", "name", "said"), FOUND.values(), ids=FOUND)
def test_what_would_change_a_value_is_refused(program: Program, given: dict[str, Any], name: str, said: str) -> None:
    assert said in dict(program.translate(given).refused)[name]


@pytest.mark.parametrize("given", [{"learning_rate": {"deep": "Bearer hunter2secret"}}, {"seed": ["hunter2secret"]}])
def test_a_reason_does_not_show_what_a_table_or_a_list_holds(given: dict[str, Any]) -> None:
    refused = dict(LLAMA_FACTORY.translate(given).refused)
    assert set(given) <= set(refused)
    assert "hunter2secret" not in str(refused)


def test_a_number_of_too_many_digits_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "theirs.yaml").write_text(f"stage: sft\nmax_steps: {'9' * 5000}\n")
    assert main(["import", str(tmp_path / "theirs.yaml")]) == 2
    assert "holds a number or a date that cannot be read" in capsys.readouterr().err
