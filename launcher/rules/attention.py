"""Which attention a run computes with, and which it cannot."""

from dataclasses import replace

from conf.mixtures import adapts_experts
from conf.schema import Run
from launcher.facts.model.facts import Traits
from launcher.facts.model.families import traits_of
from launcher.facts.node import is_before_ampere
from launcher.rules.rule import Rule


def attention_dropout(run: Run) -> float:
    architecture = run.model.architecture
    by_default = family_traits(run).attention_dropout
    return float(architecture.get("attention_dropout", architecture.get("attn_pdrop", by_default)))


def family_traits(run: Run) -> Traits:
    return traits_of(run.model.architecture.get("model_type"))


def capped(run: Run) -> bool:
    """Whether attention scores pass through a soft cap."""
    return family_traits(run).capped_scores


def uncompared(run: Run) -> bool:
    traits = family_traits(run)
    return not traits.varlen or (traits.window_in_masks and run.model.architecture.get("use_sliding_window", False))


def varlen(run: Run) -> bool:
    return run.training.attention == "varlen"


def on_old_gpu(run: Run) -> bool:
    return run.node.gpus != 0 and is_before_ampere(run.node.gpu_name)


# What transformers 5.23 has no scaled dot-product attention for, among its causal language models; gemma2 has a rule of its own.
# tests/trainers/model/test_attention.py compares them with the installed version.
WITHOUT_SDPA = frozenset(
    (
        *("big_bird", "bigbird_pegasus", "bloom", "codegen", "cpmant", "deepseek_v4", "falcon_mamba", "flint", "git", "got_ocr2", "gpt_neo"),
        *("gpt_neox_japanese", "gpt_oss", "gptj", "granite_swa", "granitemoe_swa", "hy_v4", "inkling2_text", "mamba", "mamba2", "megatron-bert"),
        *("mimo_v2_flash", "mpt", "mvp", "openai-gpt", "prophetnet", "reformer", "rembert", "roformer", "rwkv", "trocr", "vaultgemma", "xglm"),
        *("xlm", "xlnet", "xlstm"),
    )
)


def without_sdpa(run: Run) -> bool:
    return run.model.architecture.get("model_type") in WITHOUT_SDPA


ATTENTION_RULES: tuple[Rule, ...] = (
    Rule(
        "sdpa-gemma2",
        lambda run: run.training.attention == "sdpa" and capped(run),
        "The model's attention scores are soft-capped: `Gemma2ForCausalLM does not support an attention implementation through "
        "torch.nn.functional.scaled_dot_product_attention yet`.",
        "training.attention=eager",
    ),
    Rule(
        "sdpa-family",
        lambda run: run.training.attention == "sdpa" and without_sdpa(run),
        "transformers has no scaled dot-product attention for this family: the ranks end with `does not support an attention implementation through "
        "torch.nn.functional.scaled_dot_product_attention yet`.",
        "training.attention=eager",
    ),
    Rule(
        "adapted-experts-varlen",
        lambda run: adapts_experts(run) and run.training.attention == "varlen",
        "The memory of layers whose experts have adapters is traced, and a trace knows no variable-length attention.",
        "training.attention=sdpa",
    ),
    Rule(
        "varlen-softcap",
        lambda run: varlen(run) and capped(run),
        "The model's attention scores are soft-capped, and torch's variable-length kernels have no cap, so a different model would be trained.",
        "training.attention=eager",
    ),
    Rule(
        "varlen-unpacked",
        lambda run: varlen(run) and not run.data.packing and run.training.kernels == "plain",
        "Without packing every row is one sample, and training.kernels=plain gives these kernels no bounds. The key would have no effect.",
        "training.attention=sdpa",
    ),
    Rule(
        "varlen-fp32",
        lambda run: varlen(run) and run.node.gpus != 0 and run.training.precision == "fp32",
        "On GPUs the variable-length kernels compute only in 16 bits: `FlashAttention only support fp16 and bf16 data type`.",
        "training.attention=sdpa",
    ),
    Rule(
        "varlen-old-gpu",
        lambda run: varlen(run) and on_old_gpu(run),
        "The variable-length kernels are not built for this GPU: `FlashAttention only supports Ampere GPUs or newer`.",
        "training.attention=sdpa",
    ),
    Rule(
        "varlen-dropout",
        lambda run: varlen(run) and attention_dropout(run) > 0,
        "The model drops attention weights in training (attention_dropout or attn_pdrop), and the variable-length kernels have no dropout.",
        "training.attention=sdpa",
    ),
    Rule(
        "varlen-family",
        lambda run: varlen(run) and not capped(run) and uncompared(run),
        "Packed and single rows were not compared for this family. Its attention may have sinks, biases or windows that the kernels do not get.",
        "training.attention=sdpa",
    ),
)


def chosen_attention(run: Run) -> str:
    """For packed rows the kernels that need no mask, where they can work; else torch's scaled dot-product attention, where it can."""
    for name in ("varlen", "sdpa"):
        candidate = replace(run, training=replace(run.training, attention=name))
        if not any(rule.applies(candidate) for rule in ATTENTION_RULES):
            return name
    return "eager"
