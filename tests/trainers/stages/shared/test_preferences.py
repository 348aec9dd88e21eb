"""What the trainers of TRL have in common here."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from trainers.stages.shared.preferences import as_before_training

TINY = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2}
TOKENS = torch.arange(8)[None]


def test_a_model_is_asked_as_it_was_before_training_and_its_adapter_still_counts_as_learning() -> None:
    """FSDP2 reads in its first pass which weights learn."""
    base = LlamaForCausalLM(LlamaConfig(**TINY)).eval()
    with torch.no_grad():
        untrained = base(TOKENS).logits
    model = get_peft_model(base, LoraConfig(target_modules=["q_proj"], init_lora_weights=False)).eval()
    learning = [name for name, weight in model.named_parameters() if weight.requires_grad]

    with as_before_training(model):
        inside = [name for name, weight in model.named_parameters() if weight.requires_grad]
        logits = model(TOKENS).logits

    assert inside == learning != []
    assert not logits.requires_grad
    assert torch.equal(logits, untrained)
    assert not torch.equal(model(TOKENS).logits, untrained)
    assert [name for name, weight in model.named_parameters() if weight.requires_grad] == learning
