"""Files of LLaMA-Factory that train nothing: export, predict and chat. Each becomes a command, in which RUN stands for the run folder."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from launcher.moving.draft import OFF, Draft

SAMPLING = {"temperature": 0.95, "top_p": 0.7}  # its GeneratingArguments, with do_sample: true
OF_RUN = "RUN stands for the run folder: the model, its adapter and its template are known there"
NO_USE = "it changes neither the model nor the answers"

Words = Callable[[Any], tuple[str, ...]]


def option(name: str, form: str = "{}") -> Words:
    return lambda value: (name, form.format(value))


def key(name: str) -> Words:
    return lambda value: (f"{name}={value}",)


def each(name: str) -> Words:
    return lambda value: tuple(word for part in (value if isinstance(value, list) else str(value).split(",")) for word in (name, str(part).strip()))


@dataclass(frozen=True)
class Verb:
    named_by: str  # the argument that only such a file has
    words: Mapping[str, Words]
    defaults: Mapping[str, Any]
    refused: Mapping[str, str]


OF_RUNS = ("model_name_or_path", "adapter_name_or_path", "template", "finetuning_type", "trust_remote_code", "stage", "quantization_bit")
IDLE = (
    *("export_device", "infer_backend", "predict_with_generate", "do_predict", "do_sample", "overwrite_cache", "overwrite_output_dir", "report_to"),
    *("preprocessing_num_workers", "dataloader_num_workers", "bf16", "fp16", "ddp_timeout", "infer_dtype", "flash_attn"),
)
VERBS: Mapping[str, Verb] = {
    "export": Verb(
        "export_dir",
        {"export_dir": option("--to"), "export_size": option("--shard-size", "{}GB"), "export_hub_model_id": option("--push")},
        {},
        {
            "export_quantization_bit": "an exported model is not quantised",
            "export_legacy_format": "weights are always written as safetensors",
        },
    ),
    "predict": Verb(
        "do_predict",
        {
            **{
                "eval_dataset": each("--data"),
                "dataset_dir": key("data.folder"),
                "max_samples": key("data.max_samples"),
                "cutoff_len": key("data.cutoff"),
            },
            **{"per_device_eval_batch_size": option("--batch"), "output_dir": option("--to"), "max_new_tokens": option("--max-new-tokens")},
            **{"temperature": option("--temperature"), "top_p": option("--top-p"), "seed": option("--seed")},
        },
        {**SAMPLING, "max_new_tokens": 1024, "dataset_dir": "data"},
        {"num_beams": "answers are drawn, not searched for with beams", "top_k": "answers are drawn among the likeliest tokens of a share: top_p"},
    ),
    "chat": Verb(
        "infer_backend",
        {
            **{"default_system": key("--system"), "max_new_tokens": option("--max-new-tokens"), "temperature": option("--temperature")},
            **{"top_p": option("--top-p"), "seed": option("--seed")},
        },
        {**SAMPLING, "max_new_tokens": 1024},
        {"num_beams": "answers are drawn, not searched for with beams", "top_k": "answers are drawn among the likeliest tokens of a share: top_p"},
    ),
}


def verb_of(given: Mapping[str, Any]) -> str | None:
    """The verb of a file that trains nothing; None for one that does."""
    if given.get("do_train") or given.get("dataset") is not None:
        return None
    return next((name for name, verb in VERBS.items() if given.get(verb.named_by) not in OFF), None)


def translate(name: str, given: Mapping[str, Any]) -> tuple[Draft, list[str]]:
    """What became of each argument, and the words after `regimen`."""
    verb = VERBS[name]
    draft, words = Draft(given, verb.defaults), [name, "RUN"]
    drawn = draft.value("do_sample") is not False
    for argument, made in verb.words.items():
        value = draft.value(argument) if drawn or argument not in SAMPLING else None
        if value is not None:
            words += made(value)
            draft.same(argument, " ".join(made(value)))
    for argument, value in given.items():
        if argument in OF_RUNS:
            draft.idle(argument, OF_RUN)
        elif argument in verb.refused and value not in OFF:
            draft.refuse(argument, verb.refused[argument])
        elif argument in IDLE or value in OFF or argument in SAMPLING:
            draft.idle(argument, NO_USE)
        elif argument not in draft.outcomes:
            draft.refuse(argument, f"it is not an argument that is known of {name}. Leave it out")
    return draft, words
