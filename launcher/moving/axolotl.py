"""The keys of a training file of axolotl as the keys of a run: model, stage, regime, data. The rest is in axolotl_keys.py.

Defaults and meanings are those of its src/axolotl/utils/schemas, and of transformers' TrainingArguments and TRL's configurations where it passes
a key on. Where a value cannot mean the same here it is refused by name, and nothing is started.
"""

from collections.abc import Mapping
from typing import Any

from conf.chat_templates import template_names
from conf.constants import ALL_LINEAR
from launcher.composition.names import preset_of
from launcher.moving.axolotl_keys import settle_others, training
from launcher.moving.draft import NAME_OF_A_SECRET, Draft
from launcher.moving.program import Program

DEFAULTS: Mapping[str, Any] = {
    **{"sequence_len": 512, "val_set_size": 0.0, "lora_dropout": 0.0, "micro_batch_size": 1, "gradient_accumulation_steps": 1, "num_epochs": 1.0},
    **{"optimizer": "adamw_torch_fused", "lr_scheduler": "cosine", "weight_decay": 0.0, "max_grad_norm": 1.0, "bf16": "auto", "seed": 42},
    **{"gradient_checkpointing": False, "simpo_gamma": 0.5, "cpo_alpha": 1.0, "kto_desirable_weight": 1.0, "kto_undesirable_weight": 1.0},
}
# Arguments that may be a list, and those that may be a table; all others are one value.
LISTS = (
    *("datasets", "pretraining_dataset", "test_datasets", "tokens", "lora_target_modules", "lora_modules_to_save", "fsdp", "plugins"),
    *("unfrozen_parameters", "lora_target_parameters", "relora_prune_ratio", "peft_layers_to_transform"),
)
TABLES = ("pretraining_dataset", "deepspeed", "fsdp_config", "special_tokens", "gradient_checkpointing_kwargs", "lr_scheduler_kwargs", "optim_args")
READ_BY_COLUMNS = ("alpaca", "sharegpt", "chat_template", "completion", "pretrain")  # types whose records are known by their columns here
FIELDS = {"field_messages": ("messages", "conversations", "conversation")}
# Of one message: the columns, and the names of who speaks, that are known here.
COLUMNS = {"role": {"role", "from"}, "content": {"content", "value"}}
SPEAKERS = {"system": {"system"}, "user": {"human", "user"}, "assistant": {"gpt", "assistant"}, "tool": {"tool"}}


def is_axolotl(given: Mapping[str, Any]) -> bool:
    """Its files name the model `base_model`, LLaMA-Factory's `model_name_or_path`."""
    return "base_model" in given and "model_name_or_path" not in given


def model(draft: Draft) -> None:
    path = draft.text("base_model")
    if path is None:
        draft.refuse("base_model", "it names no model")
        return
    preset = preset_of(path)
    draft.put("base_model", "model", preset or "local")
    if preset is None:
        draft.put("base_model", "model.path", path)
    draft.text_to("revision_of_model", "model.revision")
    if draft.texts("tokens"):
        draft.put("tokens", "model.added_tokens", draft.texts("tokens"))
    if draft.value("tokenizer_config") not in (None, path):
        draft.refuse("tokenizer_config", "the tokenizer of another model changes what each row of the embeddings means. Leave it out")
    draft.idle("tokenizer_config", "the tokenizer of the model, as here")
    special = draft.value("special_tokens") or {}
    if not isinstance(special, Mapping):
        draft.refuse("special_tokens", f"{special!r} is no table of names and tokens")
        return
    others = sorted({"bos_token", "eos_token", "unk_token"} & set(special))
    why = (
        f"the tokenizer's own are used, also for {', '.join(others)}. See what is written: regimen data validate"
        if others
        else "padding is never learned"
    )
    draft.idle("special_tokens", why)


def stage(draft: Draft) -> None:
    draft.assume("stage", "sft")
    if draft.switch("reward_model"):
        draft.put("reward_model", "stage", "rm")
    elif draft.on("rl"):
        preferences(draft)
    elif draft.value("pretraining_dataset") is not None or types(draft) == {"completion"}:
        name = "pretraining_dataset" if draft.value("pretraining_dataset") is not None else "datasets"
        draft.put(name, "stage", "pt")


def preferences(draft: Draft) -> None:
    name = draft.value("rl")
    if name not in ("dpo", "ipo", "kto", "orpo", "simpo"):
        draft.refuse(
            "rl", f"{name} is not translated. Use dpo, ipo, kto, orpo or simpo, or write stage=grpo or ppo yourself (docs/guides/training.md)"
        )
        return
    draft.put("rl", "stage", "dpo" if name == "ipo" else name)
    beta = "orpo_alpha" if name == "orpo" else "dpo_beta" if draft.stated("dpo_beta") else "rl_beta"
    if draft.value(beta) is None:
        draft.assume("stage.beta", 0.1)
    else:
        draft.number_to(beta, "stage.beta")
    if name in ("dpo", "ipo"):
        draft.put("rl", "stage.loss", "ipo" if name == "ipo" else "sigmoid")
        if draft.stated("dpo_label_smoothing"):
            draft.number_to("dpo_label_smoothing", "stage.label_smoothing")
    if name == "kto":
        draft.numbers_to(kto_desirable_weight="stage.desirable_weight", kto_undesirable_weight="stage.undesirable_weight")
    if name == "simpo":
        draft.numbers_to(simpo_gamma="stage.margin", cpo_alpha="stage.sft_weight")


def types(draft: Draft) -> set[str]:
    return {str(one.get("type", "")).split(".")[0] for one in listed(draft) if isinstance(one.get("type", ""), str)}


def listed(draft: Draft) -> list[Mapping[str, Any]]:
    name = "pretraining_dataset" if draft.value("pretraining_dataset") is not None else "datasets"
    given = draft.value(name)
    rows = [{"path": given}] if isinstance(given, str) else given
    return [row for row in rows if isinstance(row, Mapping)] if isinstance(rows, list) else []


def regime(draft: Draft) -> None:
    kind, four, eight = draft.value("adapter") or None, draft.switch("load_in_4bit"), draft.switch("load_in_8bit")
    if kind not in (None, "lora", "qlora"):
        draft.refuse("adapter", f"{kind} is not a regime here. Use lora or qlora, or leave it out to train every weight")
        return
    if kind is None:
        draft.put("adapter", "regime", "full")
        for name in ("load_in_4bit", "load_in_8bit"):
            if draft.switch(name):
                draft.refuse(name, "quantised weights cannot learn. Use adapter: qlora")
    elif kind == "qlora" and not four:
        draft.refuse("adapter", "qlora needs load_in_4bit: true")
    else:
        if four and eight:
            draft.refuse("load_in_8bit", "load_in_4bit is on too. Leave one of them out")
        draft.put("adapter", "regime", "qlora" if four or eight else "lora")
        if four or eight:
            draft.put("load_in_4bit" if four else "load_in_8bit", "regime.bits", 4 if four else 8)
        if four:
            draft.put("load_in_4bit", "regime.double_quant", True)  # its own bnb_config_kwargs
        lora(draft)
    for name in ("load_in_4bit", "load_in_8bit"):
        draft.idle(name, "off, as here")


def lora(draft: Draft) -> None:
    for name, key in {"lora_r": "regime.rank", "lora_alpha": "regime.alpha"}.items():
        if draft.value(name) is None:
            draft.refuse(name, "an adapter needs it, and it is not stated")
        else:
            draft.number_to(name, key)
    draft.number_to("lora_dropout", "regime.dropout")
    targets = draft.texts("lora_target_modules")
    if draft.switch("lora_target_linear"):
        draft.put("lora_target_linear", "regime.targets", [ALL_LINEAR])
        if targets:
            draft.refuse("lora_target_modules", "lora_target_linear is on too. Leave one of them out")
    elif targets:
        draft.put("lora_target_modules", "regime.targets", targets)
    else:
        draft.refuse("lora_target_modules", "it is not stated, nor is lora_target_linear, and PEFT's own choice depends on its version")
    draft.switch_to("peft_use_dora", "regime.dora")
    draft.switch_to("peft_use_rslora", "regime.rslora")
    if draft.on("loraplus_lr_ratio"):
        draft.number_to("loraplus_lr_ratio", "regime.lora_plus_ratio")
    if draft.on("lora_model_dir"):
        draft.text_to("lora_model_dir", "regime.adapter")


def data(draft: Draft) -> None:
    name = "pretraining_dataset" if draft.value("pretraining_dataset") is not None else "datasets"
    rows = listed(draft)
    stated = draft.value(name)
    if not rows or not all(isinstance(row.get("path"), str) for row in rows):
        draft.refuse(name, "each of its entries needs a path")
        return
    if isinstance(stated, list) and len(rows) < len(stated):
        draft.refuse(name, f"{next(row for row in stated if not isinstance(row, Mapping))!r} is no table with a path")
    if name != "datasets" and draft.on("datasets"):
        draft.refuse("datasets", "pretraining_dataset is stated too. Leave one of them out")
    draft.put(name, "data", "files")
    notes = [note for row in rows for note in notes_of(draft, name, row)]
    draft.put(name, "data.sets", [str(row["path"]) for row in rows], "; ".join(dict.fromkeys(notes)))
    texts = draft.values.get("stage") == "pt"
    if name == "pretraining_dataset":
        draft.put(name, "data.streaming", True)
    draft.number_to("sequence_len", "data.cutoff")
    if not texts:
        draft.assume("data.on_long", "drop", "what is longer is left out")
        draft.assume("data.bad_share", 1.0, "however much that is")
    template(draft, texts)
    draft.switch_to("train_on_inputs", "data.mask_prompt", False)
    draft.put("sample_packing", "data.packing", draft.switch("sample_packing"))
    share = draft.number("val_set_size") or 0
    if share >= 1:
        draft.refuse("val_set_size", f"{share} samples: only a share below 1 can be held out, such as val_set_size: 0.1")
    elif share:
        draft.put("val_set_size", "data.validation_share", share)
    draft.idle("val_set_size", "no data is held out")


def notes_of(draft: Draft, name: str, row: Mapping[str, Any]) -> list[str]:
    """What is said of one set; what it states that cannot mean the same is refused."""
    kind = row.get("type", "pretrain" if name == "pretraining_dataset" else "")
    base = kind.split(".")[0] if isinstance(kind, str) else ""
    preferring = draft.on("rl") or draft.on("reward_model")
    if not isinstance(kind, str) or (kind not in READ_BY_COLUMNS and not preferring):
        draft.refuse(
            name, f"type {kind!r} of {row['path']} is not known by its columns. Describe the set in a dataset_info.json (docs/guides/data.md)"
        )
    for key, value in row.items():
        if key in ("path", "type", "ds_type", "trust_remote_code") or value in (None, "") or (key, value) == ("split", "train"):
            continue
        if (
            value in FIELDS.get(key, ())
            or (key == "message_property_mappings" and known(value, COLUMNS))
            or (key == "roles" and known(value, SPEAKERS))
        ):
            continue
        if key in ("field_chosen", "field_rejected") and f"field_{value}" == key:
            continue
        said = f"{key}: ***" if NAME_OF_A_SECRET.search(key) else f"{key}: {value}"
        draft.refuse(name, f"{said} of {row['path']} is not translated. Describe the set in a dataset_info.json (docs/guides/data.md)")
    if preferring:
        return ["its columns decide how it is read: regimen data validate shows it"]
    return ["an input follows its instruction without a heading of its own"] if base == "alpaca" else []


def known(stated: Any, names: Mapping[str, set[str]]) -> bool:
    """Whether a table states nothing else than the names that are known here."""
    rows = stated.items() if isinstance(stated, Mapping) else [("", stated)]
    return all({str(name) for name in (value if isinstance(value, list) else [value])} <= names.get(str(key), set()) for key, value in rows)


def template(draft: Draft, texts: bool) -> None:
    name, kinds = draft.text("chat_template"), types(draft)
    if texts:
        draft.idle("chat_template", "stage=pt learns texts as they stand")
    elif len(written(kinds)) > 1:
        draft.refuse("datasets", f"a run has one template, and sets of the types {', '.join(sorted(kinds))} are written in different ones")
    elif kinds == {"alpaca"} and not draft.on("rl"):
        draft.put("datasets", "data.template", "alpaca")
        draft.idle("chat_template", "type alpaca has prompts of its own: data.template=alpaca")
    elif name is None and len(kinds & set(template_names())) == 1:  # llama3.ultra, chatml.intel: pairs written in that template
        draft.put("datasets", "data.template", *(kinds & set(template_names())))
    elif name in template_names():
        draft.put("chat_template", "data.template", name)
    elif name is not None:
        note = (
            ""
            if name == "tokenizer_default"
            else f"{name} is not among the named ones: the tokenizer's own is used. See what it writes: data validate"
        )
        draft.put("chat_template", "data.template", None, note)


def written(kinds: set[str]) -> set[str]:
    """The templates that the types stand for; sharegpt and chat_template are both written in that of the model."""
    return {"chat_template" if kind == "sharegpt" else kind for kind in kinds}


AXOLOTL = Program("axolotl", DEFAULTS, LISTS, TABLES, model, stage, regime, data, training, settle_others)
