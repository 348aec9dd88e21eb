"""Tokens that a run adds: one id each, rows at the mean, learned beside an adapter, and loaded back."""

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from conf.schema import Run
from launcher.composition.compose import compose
from tests.described import composed
from trainers.model.tokenizer import load_tokenizer
from trainers.model.vocabulary import added_ids, grown
from trainers.regimes import prepare_model, with_adapter

TOKENS = ("<tool>", "</tool>")
IDS = [260, 261]  # after 256 bytes and 4 special tokens; the demo model has 264 rows


def described(*overrides: str) -> Run:
    tokens = ",".join(f'"{token}"' for token in TOKENS)
    return composed("model=demo", "data=demo", "training.precision=fp32", f"model.added_tokens=[{tokens}]", *overrides)


def test_an_added_token_is_one_token() -> None:
    tokenizer = load_tokenizer(described())
    assert tokenizer.encode("a<tool>b</tool>", add_special_tokens=False) == [*tokenizer.encode("a"), 260, *tokenizer.encode("b"), 261]
    assert added_ids(described().model, tokenizer) == IDS


def test_a_token_that_is_there_already_is_refused() -> None:
    with pytest.raises(ValueError, match=r"model\.added_tokens: <\|im_end\|> is a token of this tokenizer already"):
        load_tokenizer(compose(["model=demo", "data=demo", 'model.added_tokens=["<|im_end|>"]']))


@pytest.mark.parametrize("tied", ["true", "false"])
def test_new_rows_begin_at_the_mean_of_the_others(tied: str, tmp_path: Path) -> None:
    run = described("regime=full", f"model.architecture.tie_word_embeddings={tied}", "model.vocab_multiple=8")
    model = grown(prepare_model(run, AutoModelForCausalLM, tmp_path), run, load_tokenizer(run)).model
    plain = prepare_model(
        compose(["model=demo", "data=demo", "training.precision=fp32", "regime=full", f"model.architecture.tie_word_embeddings={tied}"]),
        AutoModelForCausalLM,
        tmp_path,
    ).model
    kept = [row for row in range(264) if row not in IDS]
    for layer, before in (
        (model.get_input_embeddings(), plain.get_input_embeddings()),
        (model.get_output_embeddings(), plain.get_output_embeddings()),
    ):
        assert layer.weight.shape == (272, 128)  # 264 + 2, up to a multiple of 8
        assert torch.equal(layer.weight[kept], before.weight[kept])
        for row in (*IDS, 264, 271):
            torch.testing.assert_close(layer.weight[row], before.weight[kept].mean(dim=0))
    assert model.config.vocab_size == 272


@pytest.mark.parametrize("tied", ["true", "false"])
def test_beside_an_adapter_the_rows_of_added_tokens_learn_and_are_saved_with_it(tied: str, tmp_path: Path) -> None:
    run = described("regime=lora", f"model.architecture.tie_word_embeddings={tied}")
    tokenizer = load_tokenizer(run)
    model = with_adapter(grown(prepare_model(run, AutoModelForCausalLM, tmp_path / "base"), run, tokenizer), run)
    rows = [weight for name, weight in model.named_parameters() if weight.requires_grad and "trainable_tokens" in name]
    assert [weight.shape for weight in rows] == [(2, 128)] * (1 if tied == "true" else 2)
    with torch.no_grad():
        for weight in rows:
            weight += 1.0
    prompt = torch.tensor([[5, 260, 7, 261]])
    before = model.eval()(input_ids=prompt).logits
    model.save_pretrained(tmp_path / "adapter")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    base.resize_token_embeddings(266)
    back = PeftModel.from_pretrained(base, tmp_path / "adapter")
    torch.testing.assert_close(back.eval()(input_ids=prompt).logits, before)
