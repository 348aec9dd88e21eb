"""The weights that a run left, as the model that it trained."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import PartialState
from peft import PeftModel
from safetensors import SafetensorError
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase, set_seed

from conf.committed import MANIFEST, faults
from conf.constants import ADAPTER_CONFIG
from conf.mixtures import draws_experts
from conf.regimes import regime_row
from conf.request import Trained
from conf.run_dir import RunDir
from conf.schema import Lora, Run
from trainers.model.attention import implementation
from trainers.model.build import FROZEN, ModelClass, by_precision, load_model, on_disk
from trainers.model.conversation import end_answers
from trainers.model.prepared import PreparedModel
from trainers.model.tokenizer import load_tokenizer
from trainers.model.vocabulary import with_rows
from trainers.ranks.causes import is_full_disk
from trainers.regimes import regime_module
from trainers.regimes.dequantised import with_plain_layers
from trainers.stages import stage_module


def is_adapter(weights: Path) -> bool:
    return (weights / ADAPTER_CONFIG).is_file()


def model_class(run: Run) -> ModelClass:
    """The Auto class that the run's stage trains: of text, or of scores."""
    chosen: ModelClass = stage_module(run).MODEL_CLASS
    return chosen


def refuse_damaged(trained: Trained) -> None:
    """A checkpoint or final model that is not what its manifest says is never used.

    Raises:
        ValueError: naming the file.
    """
    folder = Path(trained.weights)
    if trained.base or not (trained.step is not None or folder == RunDir(Path(trained.run_folder)).model or (folder / MANIFEST).exists()):
        return  # weights that no run of ours has committed
    found = faults(folder)
    if found:
        instead = "another checkpoint, or the final model" if trained.step is not None else "a committed checkpoint (RUN@step-N), or train again"
        raise ValueError(f"{folder} cannot be used: {found[0]}. Name {instead}.")


@contextmanager
def naming_the_weights(trained: Trained) -> Iterator[None]:
    """Libraries report a cut or missing file, and weights that a merge makes NaN, in their own words."""
    try:
        yield
    except (OSError, ValueError, SafetensorError) as error:
        if is_full_disk(error) or (isinstance(error, OSError) and error.errno is not None):
            raise  # the disk's own message: what is full, or what cannot be written
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(f"{trained.weights} cannot be used: {first} Name a committed checkpoint (RUN@step-N), or train again.") from error


def load_tokenizer_of(run: Run, trained: Trained) -> PreTrainedTokenizerBase:
    """As training saved it, with its chat template; of a base as training begins with it."""
    if trained.base:
        return load_tokenizer(run)
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(trained.weights)
    return tokenizer


def load_trained(run: Run, trained: Trained) -> PreTrainedModel | PeftModel:
    """The model as a forward pass of training saw it, on the GPU if there is one; an adapter stays beside its base.

    Raises:
        ValueError: for a damaged checkpoint, or a base that cannot be loaded.
    """
    refuse_damaged(trained)
    if trained.base:
        model = load_start(run, trained)
    elif is_adapter(Path(trained.weights)):
        base = load_base(run, trained)
        with naming_the_weights(trained):
            model = with_trained_adapter(base, run, trained)
    else:
        keywords = {"dtype": by_precision(FROZEN, run.training.precision), "attn_implementation": implementation(run)}
        with naming_the_weights(trained):
            model = model_class(run).from_pretrained(trained.weights, config=AutoConfig.from_pretrained(trained.weights), **keywords)
    if not regime_row(run.regime.name).quantised:  # what is quantised was put where it belongs
        model = model.to(PartialState().device)
    end_answers(model, load_tokenizer_of(run, trained))  # programs that are not regimen's own generate with the model's settings
    return model.eval()


def load_start(run: Run, trained: Trained) -> PreTrainedModel:
    """The model before training, in the dtype of the forward pass."""
    if regime_row(run.regime.name).learns == "an adapter":
        return load_base(run, trained)
    model = with_rows(load_model(run, model_class(run)), run, load_tokenizer_of(run, trained))
    return model.to(by_precision(FROZEN, run.training.precision))


def load_base(run: Run, trained: Trained) -> PreTrainedModel:
    """The base of an adapter exactly as training loaded it: quantised alike, in the same dtype."""
    assert isinstance(run.regime, Lora)
    written = run.model.init == "random" and not draws_experts(run)
    base = on_disk(run.model, RunDir(Path(trained.run_folder)).base) if written else run.model
    prepared: PreparedModel = regime_module(run).prepare_model(replace(run, model=base), model_class(run))
    return with_rows(prepared.model, run, load_tokenizer_of(run, trained))


def with_trained_adapter(base: PreTrainedModel, run: Run, trained: Trained) -> PeftModel:
    """A checkpoint of a PiSSA run belongs to the base less its main directions, which PEFT finds again: from the seed, as in training."""
    set_seed(run.training.seed)
    return PeftModel.from_pretrained(base, trained.weights)


def merged(run: Run, trained: Trained, dtype: torch.dtype) -> PreTrainedModel:
    """Base and adapter as one model of `dtype` on the CPU; a quantised base is dequantised first.

    Raises:
        ValueError: as load_trained, and where merging gives NaN.
    """
    refuse_damaged(trained)
    base = load_base(run, trained)
    plain = with_plain_layers(base, dtype, torch.device("cpu")).to("cpu").to(dtype) if regime_row(run.regime.name).quantised else base.to(dtype)
    with naming_the_weights(trained):
        return with_trained_adapter(plain, run, trained).merge_and_unload(safe_merge=True).to(dtype)
