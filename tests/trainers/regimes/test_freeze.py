"""Which weights regime=freeze lets learn, on several architectures."""

from dataclasses import replace

import pytest
from transformers import AutoModelForCausalLM, PreTrainedModel

from conf.schema import Run
from launcher.composition.compose import compose
from trainers.regimes.freeze import decoder_layers, names_part, prepare_model

WIDTHS = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 64}
ARCHITECTURES = {
    "llama": ({"model_type": "llama", **WIDTHS}, "model.layers"),
    "qwen3": ({"model_type": "qwen3", "head_dim": 16, **WIDTHS}, "model.layers"),
    "mixtral": ({"model_type": "mixtral", "num_local_experts": 8, **WIDTHS}, "model.layers"),
    "gpt2": ({"model_type": "gpt2", "n_embd": 32, "n_layer": 3, "n_head": 2, "vocab_size": 64}, "transformer.h"),
    "opt": (
        {
            "model_type": "opt",
            "hidden_size": 32,
            "ffn_dim": 64,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "vocab_size": 64,
            "word_embed_proj_dim": 32,
        },
        "model.decoder.layers",
    ),
    "gpt_neox": ({"model_type": "gpt_neox", **WIDTHS}, "gpt_neox.layers"),
}


def frozen(layers: int, modules: list[str], architecture: dict[str, object], *overrides: str) -> PreTrainedModel:
    run: Run = compose(["model=demo", "data=demo", "regime=freeze", *overrides])
    run = replace(run, model=replace(run.model, architecture=architecture), regime=replace(run.regime, layers=layers, modules=modules))
    return prepare_model(run, AutoModelForCausalLM).model


def llama(layers: int, modules: list[str], **more: object) -> PreTrainedModel:
    return frozen(layers, modules, {"model_type": "llama", **WIDTHS, **more})


def trained(model: PreTrainedModel) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def owners(model: PreTrainedModel, depth: int) -> set[str]:
    return {".".join(name.split(".")[:depth]) for name in trained(model)}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_last_layer_of_every_decoder_learns(name: str) -> None:
    architecture, prefix = ARCHITECTURES[name]
    model = frozen(1, [], architecture)
    assert decoder_layers(model)[0] == prefix
    assert trained(model) == {name for name, _ in model.named_parameters() if name.startswith(f"{prefix}.2.")}


def test_positive_counts_from_the_end_and_negative_from_the_start() -> None:
    assert owners(llama(2, []), 3) == {"model.layers.1", "model.layers.2"}
    assert owners(llama(-2, []), 3) == {"model.layers.0", "model.layers.1"}
    assert len(owners(llama(3, []), 3)) == 3


def test_the_last_of_twelve_layers_is_not_confused_with_the_second() -> None:
    assert owners(llama(-2, [], num_hidden_layers=12), 3) == {"model.layers.0", "model.layers.1"}


def test_modules_are_found_by_name_suffix_and_part() -> None:
    assert trained(llama(0, ["model.norm"])) == {"model.norm.weight"}
    assert trained(llama(0, ["norm"])) == {"model.norm.weight"}
    assert trained(llama(0, ["lm_head", "norm.weight"])) == {"lm_head.weight", "model.norm.weight"}
    assert trained(llama(0, ["q_proj"])) == {f"model.layers.{index}.self_attn.q_proj.weight" for index in range(3)}
    assert owners(llama(1, ["norm"]), 2) == {"model.layers", "model.norm"}


def test_a_tied_head_learns_as_the_embedding_that_it_is() -> None:
    model = llama(0, ["lm_head"], tie_word_embeddings=True)
    assert trained(model) == {"model.embed_tokens.weight"}
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_parts_are_whole_words() -> None:
    assert names_part("model.layers.1.input_norm.weight", "layers.1")
    assert not names_part("model.layers.11.input_norm.weight", "layers.1")
    assert not names_part("model.layers.1.input_norm.weight", "norm")


def test_an_unknown_module_is_named_with_near_names() -> None:
    with pytest.raises(ValueError, match=r"regime\.modules: q_prj is not a module of LlamaForCausalLM\. Near names: .*q_proj"):
        llama(1, ["q_prj"])


def test_more_layers_than_there_are_is_refused() -> None:
    with pytest.raises(ValueError, match=r"regime\.layers=-4, but the model has 3 layers"):
        llama(-4, [])


def test_nothing_to_learn_is_refused() -> None:
    with pytest.raises(ValueError, match=r"regime\.layers=0 and regime\.modules is empty"):
        llama(0, [])
