"""The arguments of LLaMA-Factory as the keys of a run: model, stage, regime. The rest is in data_keys.py and training_keys.py.

Defaults and meanings are those of its src/llamafactory/hparams (finetuning_args.py, data_args.py, model_args.py) and of transformers'
TrainingArguments. Where a value cannot mean the same here it is refused by name, and nothing is started.
"""

from collections.abc import Mapping
from typing import Any

from conf.constants import ALL_LINEAR
from launcher.composition.names import preset_of
from launcher.moving.data_keys import data
from launcher.moving.draft import Draft
from launcher.moving.others import settle_others
from launcher.moving.program import Program
from launcher.moving.training_keys import training

STAGES = ("pt", "sft", "rm", "ppo", "dpo", "kto", "orpo")  # orpo was a stage of its own before pref_loss
DEFAULTS: Mapping[str, Any] = {
    **{"stage": "sft", "finetuning_type": "lora", "pref_loss": "sigmoid", "pref_beta": 0.1, "pref_ftx": 0.0, "dpo_label_smoothing": 0.0},
    **{"simpo_gamma": 0.5, "kto_chosen_weight": 1.0, "kto_rejected_weight": 1.0, "ppo_epochs": 4, "ppo_buffer_size": 1, "reward_model_type": "lora"},
    **{"max_new_tokens": 1024, "temperature": 0.95, "top_p": 0.7, "top_k": 50},
    **{"lora_rank": 8, "lora_dropout": 0.0, "lora_target": "all", "pissa_iter": 16, "freeze_trainable_layers": 2, "freeze_trainable_modules": "all"},
    **{"quantization_method": "bnb", "quantization_type": "nf4", "double_quantization": True},
    **{"dataset_dir": "data", "cutoff_len": 2048, "val_size": 0.0, "mix_strategy": "concat", "buffer_size": 16384},
    **{"learning_rate": 5e-5, "weight_decay": 0.0, "adam_beta1": 0.9, "adam_beta2": 0.999, "adam_epsilon": 1e-8, "max_grad_norm": 1.0},
    **{"lr_scheduler_type": "linear", "warmup_ratio": 0.0, "warmup_steps": 0, "num_train_epochs": 3.0, "max_steps": -1, "seed": 42},
    **{"per_device_train_batch_size": 8, "gradient_accumulation_steps": 1, "per_device_eval_batch_size": 8, "optim": "adamw_torch_fused"},
    **{"galore_target": "all", "galore_rank": 16, "galore_update_interval": 200, "galore_scale": 2.0, "galore_proj_type": "std"},
    **{"apollo_target": "all", "apollo_rank": 16, "apollo_update_interval": 200, "apollo_scale": 32.0, "apollo_proj": "random"},
    **{"apollo_proj_type": "std", "apollo_scale_type": "channel"},
    **{"badam_mode": "layer", "badam_switch_mode": "ascending", "badam_switch_interval": 50},
    **{"logging_steps": 500, "save_steps": 500, "save_strategy": "steps", "eval_strategy": "no", "flash_attn": "auto"},
    **{"swanlab_project": "llamafactory"},
}
METHODS = {"bnb": "bnb", "bitsandbytes": "bnb", "hqq": "hqq"}  # bitsandbytes is what older files say

# Arguments that may be a list, and those that may be a table; all others are one value.
LISTS = (
    *("dataset", "eval_dataset", "lora_target", "add_tokens", "freeze_trainable_modules", "freeze_extra_modules", "additional_target"),
    *("interleave_probs", "report_to", "fsdp", "galore_target", "apollo_target", "adapter_name_or_path", "label_names"),
)
TABLES = ("deepspeed", "fsdp_config", "lr_scheduler_kwargs", "gradient_checkpointing_kwargs")


def model(draft: Draft) -> None:
    path = draft.text("model_name_or_path")
    preset = preset_of(path) if path is not None else None
    if not draft.stated("model_name_or_path"):
        draft.refuse("model_name_or_path", "it is not stated, and names the model")
    elif preset is not None:
        draft.put("model_name_or_path", "model", preset)
    elif path is not None:
        draft.put("model_name_or_path", "model", "local")
        draft.put("model_name_or_path", "model.path", path)
    if draft.value("model_revision") in (None, "main"):
        draft.idle("model_revision", "the default branch, as here")
    else:
        draft.text_to("model_revision", "model.revision")
    draft.switch_to("train_from_scratch", "model.init", "random")
    draft.switch_to("resize_vocab", "model.vocab_multiple", 64)
    if draft.texts("add_tokens"):
        draft.put("add_tokens", "model.added_tokens", draft.texts("add_tokens"))
    scaling = draft.value("rope_scaling")
    if scaling in ("linear", "dynamic", "yarn"):
        draft.put("rope_scaling", "model.rope_scaling", scaling)
    elif scaling is not None:
        draft.refuse("rope_scaling", f"{scaling} is not supported. Use linear, dynamic or yarn")


def stage(draft: Draft) -> None:
    name, loss = draft.value("stage"), draft.value("pref_loss")
    if name not in STAGES:
        draft.refuse("stage", f"{name} is not a stage. Use one of: {', '.join(STAGES)}")
        return
    as_own_stage = name == "dpo" and loss in ("orpo", "simpo")
    chosen = str(loss) if as_own_stage else str(name)
    draft.put("stage", "stage", chosen)
    if as_own_stage:
        draft.same("pref_loss", f"stage: {chosen}")
    {"dpo": dpo, "orpo": orpo, "simpo": simpo, "kto": kto, "ppo": ppo}.get(chosen, lambda _: None)(draft)


def dpo(draft: Draft) -> None:
    loss = draft.value("pref_loss")
    if loss not in ("sigmoid", "hinge", "ipo"):
        draft.refuse("pref_loss", f"{loss} is not a loss of stage=dpo here. Use sigmoid, hinge or ipo")
    else:
        draft.put("pref_loss", "stage.loss", loss)
    draft.numbers_to(pref_beta="stage.beta", pref_ftx="stage.sft_weight", dpo_label_smoothing="stage.label_smoothing")
    refuse_reference(draft)


def orpo(draft: Draft) -> None:
    draft.number_to("pref_beta", "stage.beta")
    if draft.number("pref_ftx"):
        draft.refuse("pref_ftx", "stage=orpo has the next-token loss already, with weight 1. Leave it out")


def simpo(draft: Draft) -> None:
    draft.numbers_to(pref_beta="stage.beta", simpo_gamma="stage.margin", pref_ftx="stage.sft_weight")


def kto(draft: Draft) -> None:
    draft.numbers_to(pref_beta="stage.beta", kto_chosen_weight="stage.desirable_weight", kto_rejected_weight="stage.undesirable_weight")
    if draft.number("pref_ftx"):
        draft.refuse("pref_ftx", "stage=kto has no next-token loss here. Leave it out, or use stage=dpo on pairs")
    refuse_reference(draft)


def refuse_reference(draft: Draft) -> None:
    for name in ("ref_model", "ref_model_adapters"):
        if draft.on(name):
            draft.refuse(name, "the reference is always the model as it was at the start")


def ppo(draft: Draft) -> None:
    if draft.value("reward_model_type") not in ("lora", "full"):
        draft.refuse("reward_model_type", "only a folder can be the reward model, of type lora or full. stage=grpo takes reward functions")
    draft.same("reward_model_type", "stage.reward_model: found by its files")
    if draft.on("reward_model"):
        draft.text_to("reward_model", "stage.reward_model")
    else:
        draft.refuse("reward_model", "it is not stated, and stage=ppo needs one")
    draft.numbers_to(ppo_epochs="stage.epochs", ppo_buffer_size="stage.mini_batches")
    draft.switch_to("ppo_whiten_rewards", "stage.whiten_rewards")
    draft.numbers_to(max_new_tokens="stage.response_length", temperature="stage.temperature")
    for name in ("top_p", "top_k"):
        draft.idle(name, "answers are drawn from all tokens, so that their probabilities are those that are compared")
    for name in ("ppo_target", "ppo_score_norm"):
        draft.idle(name, "the price of the divergence is fixed here: stage.kl_coef")


def regime(draft: Draft) -> None:
    kind, bits = draft.value("finetuning_type"), draft.whole("quantization_bit")
    if kind not in ("full", "freeze", "lora"):
        draft.refuse("finetuning_type", f"{kind} is not a regime here. Use full, freeze or lora")
        return
    if bits is not None and kind != "lora":
        draft.refuse("quantization_bit", f"weights of {bits} bits cannot learn. Use finetuning_type: lora")
    draft.put("finetuning_type", "regime", "qlora" if bits is not None and kind == "lora" else kind)
    if kind == "freeze":
        freeze(draft)
    if kind == "lora":
        lora(draft)
        quantised(draft, bits)


def freeze(draft: Draft) -> None:
    if draft.switch("use_llama_pro"):
        draft.refuse(
            "use_llama_pro",
            "the model of this file has its new blocks already, and regime=freeze inserts them itself. Name the original model, and write "
            f"`regime.new_blocks: {draft.value('freeze_trainable_layers')}` with `regime.layers: 0`",
        )
    draft.number_to("freeze_trainable_layers", "regime.layers")
    if draft.texts("freeze_trainable_modules") != ["all"]:
        draft.refuse("freeze_trainable_modules", "whole layers learn here, so only `all` is possible")
    draft.same("freeze_trainable_modules", "regime.layers: whole layers")
    if draft.texts("freeze_extra_modules"):
        draft.put("freeze_extra_modules", "regime.modules", draft.texts("freeze_extra_modules"))


def lora(draft: Draft) -> None:
    rank = draft.number("lora_rank") or 0
    draft.number_to("lora_rank", "regime.rank")
    if draft.value("lora_alpha"):
        draft.number_to("lora_alpha", "regime.alpha")
    else:
        draft.put("lora_alpha", "regime.alpha", 2 * rank, "twice the rank")
    draft.number_to("lora_dropout", "regime.dropout")
    targets = draft.texts("lora_target")
    draft.put("lora_target", "regime.targets", [ALL_LINEAR] if targets == ["all"] else targets)
    draft.switch_to("use_rslora", "regime.rslora")
    draft.switch_to("use_dora", "regime.dora")
    rounds = draft.whole("pissa_iter")
    draft.switch_to("pissa_init", "regime.init", "pissa" if rounds == -1 else f"pissa_niter_{rounds}")
    if draft.switch("pissa_init"):
        draft.same("pissa_iter", "regime.init")
    else:
        draft.idle("pissa_iter", "pissa_init is off")
    draft.idle("pissa_convert", "the saved adapter always fits the original base")
    if draft.value("loraplus_lr_ratio") is not None:
        draft.number_to("loraplus_lr_ratio", "regime.lora_plus_ratio")
    adapters = draft.texts("adapter_name_or_path")
    if len(adapters) > 1:
        draft.refuse("adapter_name_or_path", "several adapters cannot be trained on. Merge all but the last into the base")
    elif adapters:
        draft.put("adapter_name_or_path", "regime.adapter", adapters[0])
        if draft.switch("create_new_adapter"):
            draft.refuse("create_new_adapter", "the named adapter is trained on. Merge it into the base and name that as the model")
    if draft.texts("additional_target"):
        draft.refuse("additional_target", "modules beside the adapters cannot learn in whole. Leave it out, or use finetuning_type: full or freeze")


def quantised(draft: Draft, bits: Any) -> None:
    if bits is None:
        for name in ("quantization_method", "quantization_type", "double_quantization"):
            draft.idle(name, "quantization_bit is not stated")
        return
    method = draft.value("quantization_method")
    if (METHODS.get(method), bits) not in (("bnb", 8), ("bnb", 4), ("hqq", 2)):
        draft.refuse("quantization_bit", f"{bits} bits by {method} are not possible. 8 and 4 are made by bitsandbytes (bnb), 2 by HQQ (hqq)")
        return
    draft.put("quantization_bit", "regime.bits", bits)
    draft.same("quantization_method", f"regime.bits: {bits}, made by {method}")
    if bits == 4 and draft.value("quantization_type") != "nf4":
        draft.refuse("quantization_type", f"{draft.value('quantization_type')} is not possible. 4 bits are nf4")
    if bits == 4:
        draft.same("quantization_type", "regime.bits: 4 is nf4")
        draft.put("double_quantization", "regime.double_quant", draft.switch("double_quantization"))
    else:
        for name in ("quantization_type", "double_quantization"):
            draft.idle(name, "it is one of 4 bits")


LLAMA_FACTORY = Program("LLaMA-Factory", DEFAULTS, LISTS, TABLES, model, stage, regime, data, training, settle_others)
