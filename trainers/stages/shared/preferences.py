"""What the trainers of TRL have in common here: what is switched off in them, log-probabilities in fp32, and the frozen reference."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial, wraps
from typing import Any

import torch
from datasets import Dataset
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel, Trainer

from conf.run_dir import RunDir
from conf.schema import Run, Zero
from trainers.arguments import training_arguments
from trainers.data.rows.collator import TENSOR_CORE_WIDTH
from trainers.kernels.parts import fused, with_fused_adapter, with_fused_base
from trainers.kernels.stepping import queue_less
from trainers.model.build import FROZEN, ModelClass, by_precision, load_model
from trainers.regimes import PreparedModel, hold_adapter
from trainers.stages.shared.texts import TEXTS, answer_at_places, answer_logps


class AsPrepared:
    """Before a trainer of TRL in the list of bases: its rows are tokenised already, run.yaml is its card, and no telemetry is sent."""

    def _prepare_dataset(self, dataset: Dataset, *_: object) -> Dataset:
        return dataset

    def create_model_card(self, *_: object, **__: object) -> None:
        return

    def _send_telemetry(self) -> None:
        return


def trl_arguments(run: Run, run_dir: RunDir, has_evaluation: bool) -> dict[str, Any]:
    """Keyword arguments common to TRL's configurations. Theirs would use bf16 on a CPU and cut rows at 1024 tokens; rows are cut by now."""
    return {**training_arguments(run, run_dir, has_evaluation), "max_length": None}


def pad_multiple(run: Run) -> int:
    """As in trainers/data/rows/collator.py."""
    return 1 if run.training.precision == "fp32" else TENSOR_CORE_WIDTH


def ready(model: PreTrainedModel, run: Run, head: str | None = None) -> PreTrainedModel:
    """The model, or its reference, as a stage of this module computes it; `head`: the name of one that is not of words."""
    if fused(run):
        with_fused_base(model, run)
        answer_at_places(model, model.get_output_embeddings if head is None else partial(getattr, model, head), run.training.loss)
    return with_float_logits(model)


def settled(trainer: Trainer, run: Run) -> Trainer:
    """TRL holds the adapters of a quantised base in bf16; ours have the dtype that every other stage gives them.

    Where activations are checkpointed it hangs a hook on the embeddings, and transformers hangs the same one again, forgetting the first.
    """
    assert trainer.model is not None
    if isinstance(trainer.model, PeftModel):
        hold_adapter(trainer.model, run)
    trainer.model.disable_input_require_grads()
    if fused(run):
        with_fused_adapter(trainer.model, run)
        queue_less(trainer)
    return trainer


def with_float_logits(model: PreTrainedModel) -> PreTrainedModel:
    """Have `model` answer logits in fp32: TRL sums log-probabilities in their dtype, and a sum of -100 in bf16 is off by up to 0.25.

    Under the signature it had: TRL reads there whether it can request only the logits of answers.
    """
    narrow = model.forward

    @wraps(narrow)
    def forward(*args: Any, **keywords: Any) -> Any:
        output = narrow(*args, **keywords)
        output.logits = output.logits.float()
        return output

    model.forward = forward
    return model


def load_reference(run: Run, model_class: ModelClass, prepared: PreparedModel) -> PreTrainedModel | None:
    """A frozen copy of the model as it was before training, in the dtype that is computed in; None for adapters, which are switched off instead."""
    if prepared.peft_config is not None:
        return None
    dtype = by_precision(FROZEN, run.training.precision)
    reference = load_model(run, model_class, dtype=dtype).requires_grad_(False)
    if not isinstance(run.sharding, Zero):  # DeepSpeed's engine has the dtype of the run by itself
        reference = reference.to(dtype)
    return ready(reference, run)


@contextmanager
def as_before_training(model: nn.Module) -> Iterator[None]:
    """Without gradients, and with an adapter switched off.

    PEFT also marks its weights as frozen for as long. FSDP2 reads in its first pass, which this may be, in which dtype the gradients of what
    learns are to be (torch/distributed/fsdp/_fully_shard/_fsdp_param_group.py, _init_mp_dtypes): it is to see that they learn.
    """
    learning = [weight for weight in model.parameters() if weight.requires_grad]
    with torch.no_grad(), model.disable_adapter() if isinstance(model, PeftModel) else nullcontext():
        for weight in learning:
            weight.requires_grad_(True)
        yield


def completion_logps(model: nn.Module, batch: dict[str, Any], kind: str = "") -> Tensor:
    """Summed log-probability of each row's completion, [rows], added up in fp64: of a sum of -200 in fp32 the fifth decimal is lost.

    Of texts laid end to end (shared/texts.py), or of the columns `kind` + input_ids, attention_mask and completion_mask, each [rows, width].
    """
    if TEXTS in batch:
        return answer_logps(model, batch)
    tokens, attention, completion = (batch[f"{kind}{name}"] for name in ("input_ids", "attention_mask", "completion_mask"))
    logits = model(input_ids=tokens, attention_mask=attention, use_cache=False).logits
    sums = [row_logp(*row) for row in zip(logits[:, :-1], tokens[:, 1:], completion[:, 1:], strict=True)]
    return torch.stack(sums)


def row_logp(logits: Tensor, targets: Tensor, counted: Tensor) -> Tensor:
    """One row at a time, and only its counted positions: no second copy of the logits of a batch exists."""
    kept = counted.bool()
    return -nn.functional.cross_entropy(logits[kept].float(), targets[kept], reduction="none").double().sum()
