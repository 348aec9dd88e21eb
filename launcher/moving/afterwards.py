"""Files of LLaMA-Factory that train nothing: export, predict and chat. Each becomes a command, in which RUN stands for the run folder."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from launcher.moving.draft import OFF, Draft, shown
from launcher.moving.program import refuse_tokens

SAMPLING = {"temperature": 0.95, "top_p": 0.7}  # its GeneratingArguments, with do_sample: true
OF_RUN = "RUN stands for the run folder: the model, its adapter and its template are known there"
NO_USE = "it changes neither the model nor the answers"
DRAWN = "answers are drawn among the likeliest tokens of a share: top_p"
OF_TRAINING = ("dataset", "stage", "learning_rate", "num_train_epochs")  # each of them stands in no file of chat alone
LISTS = ("dataset", "eval_dataset", "adapter_name_or_path", "report_to")

Read = Callable[[Draft, str], Any]  # the value of an argument, refused where it is of another type


@dataclass(frozen=True)
class Verb:
    options: Mapping[str, tuple[str, Read]]  # by argument: the option of the verb, or the key that may follow it
    defaults: Mapping[str, Any]
    refused: Mapping[str, str]


def size(draft: Draft, name: str) -> str | None:
    """LLaMA-Factory counts gigabytes."""
    number = draft.number(name)
    return None if number is None else f"{number}GB"


OF_RUNS = (
    *("model_name_or_path", "adapter_name_or_path", "template", "finetuning_type", "trust_remote_code", "stage", "quantization_bit"),
    *("quantization_method", "rope_scaling", "reward_model"),
)
IDLE = (
    *("export_device", "infer_backend", "predict_with_generate", "do_predict", "do_sample", "overwrite_cache", "overwrite_output_dir", "report_to"),
    *("preprocessing_num_workers", "dataloader_num_workers", "bf16", "fp16", "ddp_timeout", "infer_dtype", "flash_attn", "vllm_enforce_eager"),
    *("vllm_maxlen", "vllm_gpu_util", "save_only_model", "plot_loss", "logging_steps", "save_steps"),
)
SAMPLED: Mapping[str, tuple[str, Read]] = {
    "max_new_tokens": ("--max-new-tokens", Draft.whole),
    "temperature": ("--temperature", Draft.number),
    "top_p": ("--top-p", Draft.number),
    "seed": ("--seed", Draft.whole),
}
NOT_DRAWN = {"num_beams": "answers are drawn, not searched for with beams", "top_k": DRAWN}
VERBS: Mapping[str, Verb] = {
    "export": Verb(
        {"export_dir": ("--to", Draft.text), "export_size": ("--shard-size", size), "export_hub_model_id": ("--push", Draft.text)},
        {},
        {
            "export_quantization_bit": "an exported model is not quantised",
            "export_quantization_dataset": "an exported model is not quantised",
            "export_legacy_format": "weights are always written as safetensors",
        },
    ),
    "predict": Verb(
        {
            "eval_dataset": ("--data", Draft.texts),
            "dataset": ("--data", Draft.texts),  # older files name the sets of a prediction so
            "dataset_dir": ("data.folder", Draft.text),
            "max_samples": ("data.max_samples", Draft.whole),
            "cutoff_len": ("data.cutoff", Draft.whole),
            "per_device_eval_batch_size": ("--batch", Draft.whole),
            "output_dir": ("--to", Draft.text),
            **SAMPLED,
        },
        {**SAMPLING, "max_new_tokens": 1024, "dataset_dir": "data"},
        NOT_DRAWN,
    ),
    "chat": Verb({"default_system": ("--system", Draft.text), **SAMPLED}, {**SAMPLING, "max_new_tokens": 1024}, NOT_DRAWN),
}


def verb_of(given: Mapping[str, Any]) -> str | None:
    """The verb of a file that trains nothing; None for one that does."""
    if given.get("do_train") not in OFF or "model_name_or_path" not in given:
        return None
    if given.get("export_dir") not in OFF:
        return "export"
    if given.get("do_predict") not in OFF:
        return "predict"
    trains = any(given.get(name) is not None for name in OF_TRAINING)
    return "chat" if not trains or (given.get("infer_backend") not in OFF and given.get("dataset") is None) else None


def translate(name: str, given: Mapping[str, Any]) -> Draft:
    """What became of each argument; its values are those of the options and keys of the verb."""
    verb = VERBS[name]
    several = {argument: value for argument, value in given.items() if isinstance(value, dict) or (isinstance(value, list) and argument not in LISTS)}
    draft = Draft({argument: None if argument in several else value for argument, value in given.items()}, verb.defaults)
    for argument, value in several.items():
        draft.refuse(argument, f"it needs one value, and is {shown(value)}")
    drawn = draft.value("do_sample") is None or draft.switch("do_sample")
    for argument, (option, read) in verb.options.items():
        wanted = read(draft, argument) if drawn or argument not in SAMPLING else None
        if wanted not in (None, []):
            draft.put(argument, option, wanted)
    for argument, stated in draft.given.items():
        settle(draft, verb, name, argument, stated)
    refuse_tokens(draft, given)
    return draft


def settle(draft: Draft, verb: Verb, name: str, argument: str, value: Any) -> None:
    if argument in draft.outcomes:
        return
    if argument in OF_RUNS:
        draft.idle(argument, OF_RUN)
    elif argument in verb.refused and value not in OFF:
        draft.refuse(argument, verb.refused[argument])
    elif argument in IDLE or value in OFF or argument in SAMPLING:
        draft.idle(argument, NO_USE)
    else:
        draft.refuse(argument, f"it is not an argument that is known of {name}. Leave it out")


def words_of(name: str, draft: Draft) -> list[str]:
    """The command after `regimen`."""
    return [name, "RUN", *(word for option, value in draft.values.items() for word in words_of_option(option, value))]


def words_of_option(option: str, value: Any) -> list[str]:
    if not option.startswith("--") or option == "--system":  # a text that begins with a dash is none of the options
        return [f"{option}={value}"]
    return [word for one in (value if isinstance(value, list) else [value]) for word in (option, str(one))]
