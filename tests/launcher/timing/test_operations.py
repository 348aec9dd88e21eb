"""FLOPs of one step, by hand for Llama-2-7B, a mixture and a model that fits on paper."""

from functools import cache

from launcher.composition.compose import compose
from launcher.facts.model import ModelFacts, architecture_source, model_facts, read_architecture
from launcher.timing.operations import StepFlops, step_flops

# Llama-2-7B: q, k, v, o 4 x 4096^2, MLP 3 x 4096 x 11008, in 32 layers; head 4096 x 32000
LLAMA_LAYERS = 32 * (4 * 16_777_216 + 3 * 45_088_768)
LLAMA_HEAD = 131_072_000
# 32 layers x 4096 wide x 2048 tokens: multiply-adds of both products, of which causality leaves half each
LLAMA_ATTENTION = 32 * 4096 * 2048
# rank 16 on all linears: 16 x (in + out) of q, k, v, o (8192 each) and gate, up, down (15104 each)
LLAMA_ADAPTERS = 32 * 16 * (4 * 8192 + 3 * 15104)


def step(*overrides: str, tokens: int) -> StepFlops:
    run = compose(["data=demo", "data.cutoff=2048", "training.gradient_checkpointing=true", *overrides])
    return step_flops(facts_of(run.model.name), run, tokens)


@cache
def facts_of(preset: str) -> ModelFacts:
    model = compose([f"model={preset}", "data=demo"]).model
    return model_facts(read_architecture(model), architecture_source(model))


def test_full_training_takes_six_flops_per_matrix_element_and_twelve_halved_for_attention() -> None:
    flops = step("model=llama2_7b", "regime=full", "training.gradient_checkpointing=false", tokens=2048)
    assert LLAMA_LAYERS == 6_476_005_376
    assert flops.model == 2048 * 6 * (6_476_005_376 + 131_072_000 + 268_435_456)
    assert flops.hardware == flops.model


def test_checkpointing_repeats_the_forward_pass_of_the_layers_but_not_of_the_head() -> None:
    flops = step("model=llama2_7b", "regime=full", tokens=2048)
    assert flops.hardware - flops.model == 2048 * 2 * (LLAMA_LAYERS + LLAMA_ATTENTION)


def test_lora_counts_no_weight_gradients_of_the_frozen_base() -> None:
    flops = step("model=llama2_7b", "training.gradient_checkpointing=false", tokens=1)
    assert LLAMA_ADAPTERS == 39_976_960
    assert flops.model == 4 * (LLAMA_LAYERS + LLAMA_HEAD) + 6 * LLAMA_ATTENTION + 6 * LLAMA_ADAPTERS


def test_qlora_asks_for_the_same_as_lora() -> None:
    assert step("model=llama2_7b", "regime=qlora", tokens=7) == step("model=llama2_7b", tokens=7)


def test_freeze_runs_only_the_learning_layers_backward() -> None:
    flops = step("model=llama2_7b", "regime=freeze", "regime.layers=2", tokens=1)
    forward = 2 * (LLAMA_LAYERS + LLAMA_HEAD + LLAMA_ATTENTION)
    # two of 32 layers: gradients of inputs and weights, attention twice; the head only passes gradients on
    backward = 4 * LLAMA_LAYERS // 16 + 4 * LLAMA_ATTENTION // 16 + 2 * LLAMA_HEAD
    assert flops.model == forward + backward
    assert flops.hardware == flops.model + 2 * (LLAMA_LAYERS + LLAMA_ATTENTION) // 16


def test_a_learning_head_alone_needs_no_gradient_of_its_input() -> None:
    flops = step("model=llama2_7b", "regime=freeze", "regime.layers=0", "regime.modules=[lm_head]", tokens=1)
    assert flops.model == 2 * (LLAMA_LAYERS + LLAMA_HEAD + LLAMA_ATTENTION) + 2 * LLAMA_HEAD
    assert flops.hardware == flops.model


def test_a_mixture_counts_the_experts_of_one_token() -> None:
    flops = step("model=mixtral_8x7b", "regime=full", "training.gradient_checkpointing=false", tokens=1)
    # q and o 4096^2, k and v 4096 x 1024, router 4096 x 8, two experts of 3 x 4096 x 14336
    layer = 2 * 16_777_216 + 2 * 4_194_304 + 32_768 + 2 * 3 * 58_720_256
    assert flops.model == 6 * (32 * layer + 131_072_000 + 32 * 4096 * 2048)


def test_a_tied_head_multiplies_and_learns_too() -> None:
    run = compose(["model=demo", "data=demo", "regime=full", "data.cutoff=64", "training.gradient_checkpointing=false"])
    # q and o 128 x 128, k and v 128 x 64, MLP 3 x 128 x 352; two layers; head 128 x 264; attention 2 x 128 x 64
    layers = 2 * (2 * 16384 + 2 * 8192 + 3 * 45056)
    assert step_flops(facts_of("demo"), run, 10).model == 10 * 6 * (layers + 33792 + 16384)


def test_flops_grow_with_the_tokens_and_the_cutoff() -> None:
    assert step("model=llama2_7b", tokens=20).model == 10 * step("model=llama2_7b", tokens=2).model
    longer = step("model=llama2_7b", "data.cutoff=4096", tokens=1).model - step("model=llama2_7b", tokens=1).model
    assert longer == 6 * LLAMA_ATTENTION


def test_a_tied_head_learns_where_only_the_embedding_does() -> None:
    learns = ["regime=freeze", "regime.layers=0", "regime.modules=[embed_tokens]"]
    run = compose(["model=demo", "data=demo", *learns, "data.cutoff=64", "training.gradient_checkpointing=true"])
    layers = 2 * (2 * 16384 + 2 * 8192 + 3 * 45056)
    # forward and back to the embedding: 2 + 2 of every matrix, 2 + 4 of attention, 2 more for the head's own gradient
    assert step_flops(facts_of("demo"), run, 1).model == 4 * (layers + 33792) + 6 * 16384 + 2 * 33792
