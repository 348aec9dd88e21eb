"""Under torchrun: a tiny model under ZeRO-3 writes answers as ppo has it do, and with the engine's hooks; rank 0 prints what each took, as JSON.

python -m torch.distributed.run --standalone --nproc-per-node=2 tests/distributed/write_answers.py FOLDER
"""

import json
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import deepspeed
import torch
from deepspeed.runtime.zero.partition_parameters import ZeroParamStatus
from deepspeed.runtime.zero.partitioned_param_coordinator import PartitionedParameterCoordinator
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM
from transformers.integrations import HfDeepSpeedConfig

from conf.run_dir import RunDir
from trainers.__main__ import place_of_this_rank
from trainers.model.answers import write_answers
from trainers.model.conversation import LIKELIEST
from trainers.ranks.extensions import guard_deepspeed
from trainers.reinforcement.whole_weights import whole_weights

TINY = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}
SETTINGS = {
    "train_micro_batch_size_per_gpu": 1,
    "zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0},
    "zero_allow_untested_optimizer": True,
}
GREEDY = GenerationConfig(max_new_tokens=8, eos_token_id=[63], pad_token_id=0, **LIKELIEST)
PROMPTS = [[1, 2, 3], [4, 5, 6]]


def counted(fetches: list[int]) -> None:
    """Have every gathering of a module's weights add one to `fetches`."""
    fetch = PartitionedParameterCoordinator.fetch_sub_module

    def fetch_and_count(*arguments: Any, **keywords: Any) -> None:
        fetches[0] += 1
        fetch(*arguments, **keywords)

    PartitionedParameterCoordinator.fetch_sub_module = fetch_and_count


def main() -> None:
    guard_deepspeed(RunDir(Path(sys.argv[1])), place_of_this_rank())  # what runs have compiled is not compiled again
    deepspeed.init_distributed(dist_backend="gloo")
    kept = HfDeepSpeedConfig(SETTINGS)  # transformers asks for as long as it lives whether this is ZeRO-3
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**TINY))
    engine, *_ = deepspeed.initialize(model=model, optimizer=torch.optim.AdamW(model.parameters()), config=kept.config)
    trainer, fetches = SimpleNamespace(model_wrapped=engine), [0]
    counted(fetches)

    def write(context: AbstractContextManager[None]) -> dict[str, Any]:
        fetches[0] = 0
        model.eval()
        with context:
            answers = write_answers(model, PROMPTS, GREEDY)
        split = all(weight.ds_status == ZeroParamStatus.NOT_AVAILABLE for weight in model.parameters())
        return {"answers": answers, "fetches": fetches[0], "split": split}

    found = {"whole": write(whole_weights(trainer)), "hooks": write(nullcontext())}
    model.train()
    tokens = torch.tensor(PROMPTS[:1])
    engine.backward(engine(input_ids=tokens, labels=tokens).loss)
    engine.step()
    if torch.distributed.get_rank() == 0:
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
