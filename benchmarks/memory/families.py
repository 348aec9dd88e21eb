"""Cells of families without a table: twelve drawn by the seed from transformers' causal language models, four cells each on one GPU.

    python -m benchmarks.memory.families       which are left out and why, and the order of the others

The order is that of all names that transformers 5.23 lists for causal language models, less those with a table, those of LEFT_OUT, and those whose
default configuration says no (`reason_against`). The first twelve are taken; those passed over stand in UNFIT with the reason, and
two whose activations cannot be recomputed, which was found when they were measured, in REPLACED. A
family has the sizes of its default configuration, with fewer layers. Each of LoRA, QLoRA with 4 bits, full bf16 and mixed precision, with and without
checkpointing, comes six times.
"""

import random
from collections.abc import Iterator

from benchmarks.memory.chosen import FULL_AMP, FULL_BF16, LORA, OFF, QLORA4, MemoryCell, cell
from launcher.facts.model.families import FAMILIES

SEED, DRAWN = 20261130, 12
LARGEST = 3e9  # parameters with the fewest layers that are measured
FEWEST = 4
SIZES = ((1, 2048), (1, 1024), (2, 1024), (4, 512), (2, 512))
HALVES = (
    ((LORA, True), (QLORA4, False), (FULL_BF16, True), (FULL_AMP, False)),
    ((LORA, False), (QLORA4, True), (FULL_BF16, False), (FULL_AMP, True)),
)
NAMES = {LORA: "lora", QLORA4: "qlora4", FULL_BF16: "full_bf16", FULL_AMP: "full_amp"}

ENCODER = "an encoder, or the decoder of an encoder-decoder"
LEFT_OUT = {
    **dict.fromkeys(("bart", "bert", "bert-generation", "big_bird", "bigbird_pegasus", "blenderbot", "blenderbot-small", "camembert"), ENCODER),
    **dict.fromkeys(("data2vec-text", "electra", "ernie", "git", "marian", "mbart", "megatron-bert", "modernbert-decoder", "moshi"), ENCODER),
    **dict.fromkeys(("musicgen", "musicgen_melody", "mvp", "pegasus", "plbart", "prophetnet", "reformer", "rembert", "roberta"), ENCODER),
    **dict.fromkeys(("roberta-prelayernorm", "roc_bert", "roformer", "trocr", "whisper", "xlm", "xlm-roberta", "xlm-roberta-xl", "xmod"), ENCODER),
    **dict.fromkeys(("xlnet",), ENCODER),
    **dict.fromkeys(("gemma4_assistant", "gemma4_unified_assistant"), "drafts tokens for another model"),
}
RECURRENT = ("mamba", "rglru", "conv", "linear_attn", "ssm")  # parts of the names of modules that are no attention

# The drawn families with their layers; those that transformers has no sdpa for.
SHAPES = {
    name: f"model_type: {name}, num_hidden_layers: {layers}"
    for name, layers in {
        **{"starcoder2": 8, "ernie4_5_moe": 4, "gemma4_unified_text": 8, "ministral3": 6, "olmo3": 8, "granite": 8, "nanochat": 12, "jetmoe": 4},
        **{"jais2": 6, "vaultgemma": 8, "gpt_neox_japanese": 16, "flint": 4, "iquestcoder": 4, "hyperclovax": 8},
    }.items()
}
UNFIT = {
    "lfm2": "most layers of its published models are convolutions; the default configuration has none",
    "bloom": "its default configuration has 64 hidden units and 2 layers",
}
EAGER = frozenset({"vaultgemma", "gpt_neox_japanese", "flint"})
REPLACED = {"jetmoe": "iquestcoder", "gpt_neox_japanese": "hyperclovax"}  # transformers cannot recompute their activations: the next two in the order


def reason_against(name: str) -> str | None:
    """Why a causal language model of transformers is left out; None for one that may be drawn."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from trainers.census import common_names
    from trainers.tracing.model import layers_of

    if name in FAMILIES:
        return "has a table"
    if name in LEFT_OUT:
        return LEFT_OUT[name]
    try:
        config = AutoConfig.for_model(name)
        if config.get_text_config() is not config:
            return "reads more than text"
        if "num_attention_heads" not in common_names(config):
            return "without attention"
        own = config.attribute_map.get("num_hidden_layers", "num_hidden_layers")
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **{own: min(config.num_hidden_layers, FEWEST)}))
        layers_of(model, model.config.num_hidden_layers)
    except Exception as error:  # noqa: BLE001  # whatever a default configuration raises is the reason
        return f"its default configuration with {FEWEST} layers cannot be built: {next(iter(str(error).splitlines()), type(error).__name__)[:120]}"
    if any(part in module for module, _ in model.named_modules() for part in RECURRENT):
        return "layers without attention"
    size = sum(weight.numel() for weight in model.parameters())
    return f"{size / 1e9:.1f} B parameters in {FEWEST} layers" if size > LARGEST else None


def order() -> tuple[list[str], dict[str, str]]:
    """The drawn order of all that may be drawn, and why the others may not."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as KNOWN

    reasons = {name: reason_against(name) for name in sorted(KNOWN)}
    names = [name for name, reason in reasons.items() if reason is None]
    random.Random(SEED).shuffle(names)
    return names, {name: reason for name, reason in reasons.items() if reason is not None}


def cells() -> Iterator[MemoryCell]:
    """Four of a family; of one that is replaced those that keep their activations, and the four of the next in the order."""
    draw = random.Random(SEED)
    for number, name in enumerate(list(SHAPES)[:DRAWN]):
        for regime, checkpointing in HALVES[number % 2]:
            samples, length = draw.choice(SIZES)
            for one in (name, REPLACED[name]) if name in REPLACED else (name,):
                if one not in REPLACED or not checkpointing:
                    yield cell_of(one, regime, checkpointing, samples, length)


def cell_of(name: str, regime: str, checkpointing: bool, samples: int, length: int) -> MemoryCell:
    attention = ("training.attention=eager",) if name in EAGER else ()
    parts = (regime, *(() if checkpointing else (OFF,)), *attention)
    return cell(f"{NAMES[regime]}{'' if checkpointing else '-kept'}", name, samples, length, *parts)


FAMILIES_ONE_GPU = tuple(cells())


def main() -> int:
    names, out = order()
    print("\n".join(f"{name:<28} {reason}" for name, reason in out.items()))
    print(f"drawn from {len(names)}, in this order: {', '.join(names)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
