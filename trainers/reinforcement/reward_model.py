"""The model that judges answers: a run of stage rm, or any sequence classifier with one output. Whole on every rank, and frozen."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from peft import PeftModel
from torch import Tensor
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments
from transformers.integrations.deepspeed import set_hf_deepspeed_config, unset_hf_deepspeed_config

from conf.committed import MANIFEST, faults
from conf.constants import ADAPTER_CONFIG
from conf.run_dir import RunDir
from conf.schema import Run
from trainers.model.answers import padded
from trainers.model.build import FROZEN, by_precision
from trainers.ranks.agreement import broadcast, on_rank_zero

Judge = Callable[[list[list[int]]], Tensor]  # rows of prompt and answer to their scores (rows,)


def load_judge(source: str, run: Run, tokenizer: PreTrainedTokenizerBase, arguments: TrainingArguments) -> Judge:
    """Scores as the stage rm learned them, training.micro_batch rows at a time.

    Raises:
        ValueError: when stage.reward_model cannot be loaded, has another number of outputs, or reads other tokens than the policy writes.
    """
    folder = weights_of(source)
    damage = broadcast(on_rank_zero(lambda: faults(Path(folder)) if (Path(folder) / MANIFEST).exists() else [], "verifying the reward model"))
    if damage:
        raise ValueError(f"stage.reward_model={source} cannot be used: {damage[0]}. Restore what was there, or train the reward model again.")
    refuse_other_tokens(source, folder, tokenizer)
    with on_each_rank(arguments):
        model = load_classifier(source, folder, by_precision(FROZEN, run.training.precision))
    model.config.pad_token_id = tokenizer.pad_token_id  # a classifier reads its score at the last token that is none
    model = model.to(arguments.device).eval().requires_grad_(False)

    @torch.no_grad()
    def judge(rows: list[list[int]]) -> Tensor:
        batches = [rows[start : start + run.training.micro_batch] for start in range(0, len(rows), run.training.micro_batch)]
        return torch.cat([scores(model, batch, int(tokenizer.pad_token_id)) for batch in batches])

    return judge


@contextmanager
def on_each_rank(arguments: TrainingArguments) -> Iterator[None]:
    """What is loaded inside is whole on every rank, also under ZeRO-3: an adapter could not be merged into parts."""
    unset_hf_deepspeed_config()
    try:
        yield
    finally:
        if arguments.deepspeed is not None:
            set_hf_deepspeed_config(arguments.hf_deepspeed_config)


def scores(model: PreTrainedModel, rows: list[list[int]], padding: int) -> Tensor:
    tokens, mask = padded(rows, padding, "right")
    logits: Tensor = model(input_ids=tokens.to(model.device), attention_mask=mask.to(model.device), use_cache=False).logits
    return logits[:, 0].float()


def weights_of(source: str) -> str:
    """The folder of a run's final model where `source` is a run folder, else `source` itself."""
    run_dir = RunDir(Path(source))
    return str(run_dir.model) if run_dir.run_yaml.is_file() else source


def load_classifier(source: str, folder: str, dtype: torch.dtype) -> PreTrainedModel:
    adapted = (Path(folder) / ADAPTER_CONFIG).is_file()
    base = base_of(Path(source), Path(folder)) if adapted else folder
    keywords = {"num_labels": 1, "dtype": dtype, "use_safetensors": True, "trust_remote_code": False, "output_loading_info": True}
    try:
        model, told = AutoModelForSequenceClassification.from_pretrained(base, **keywords)
        # merged into the base as it was before any quantisation: an adapter of qlora then judges by slightly other weights than it learned on
        model = PeftModel.from_pretrained(model, folder).merge_and_unload() if adapted else model
    except (OSError, ValueError) as error:
        raise ValueError(f"stage.reward_model={source} cannot be loaded: it must be a run of stage rm or a sequence classifier. {error}") from error
    if told["missing_keys"] and not adapted:  # an adapter brings the head that its base lacks
        missing = ", ".join(sorted(told["missing_keys"]))
        raise ValueError(f"stage.reward_model={source} has no weights for {missing}: its scores would be random. Train it with stage=rm.")
    assert isinstance(model, PreTrainedModel)
    return model


def base_of(source: Path, folder: Path) -> str:
    """What an adapter was trained on: random weights lie beside it in its run folder, which may have moved."""
    beside = RunDir(source).base
    return str(beside) if beside.is_dir() else str(json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))["base_model_name_or_path"])


def refuse_other_tokens(source: str, folder: str, tokenizer: PreTrainedTokenizerBase) -> None:
    try:
        read = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise ValueError(f"stage.reward_model={source} has no tokenizer that can be loaded. {error}") from error
    if read.get_vocab() != tokenizer.get_vocab():
        raise ValueError(
            f"stage.reward_model={source} reads different tokens from those that this model writes: their tokenizers differ. "
            "Train a reward model from the same family with stage=rm."
        )
