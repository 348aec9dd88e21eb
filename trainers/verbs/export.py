"""`python -m trainers.verbs.export FOLDER`: a trained model as files that plain transformers or PEFT load; made aside, then renamed."""

import glob
import json
import os
import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerBase

from conf.constants import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from conf.request import Export, load_export
from conf.run_dir import RunDir
from conf.schema import Qlora, Run
from trainers.after_training.model_card import model_card, public
from trainers.after_training.shards import DTYPES, METADATA, Shape, copy_weights, header_shapes
from trainers.after_training.trained import load_tokenizer_of, merged, naming_the_weights, refuse_damaged
from trainers.checkpoints.commit import sync
from trainers.model.build import FROZEN, by_precision
from trainers.model.conversation import generation_config
from trainers.verbs.frame import naming_the_target, perform

MAKING = ".making-"


def export(run: Run, request: Export) -> None:
    """Raises ValueError when the weights cannot be used, when merging gives NaN, or when what was written is not what was meant."""
    target = Path(request.target)
    making = make_aside(target)
    try:
        write_model(run, request, making)
        for path in making.iterdir():
            sync(path)
        with naming_the_target(target):
            os.rename(making, target)
    finally:
        shutil.rmtree(making, ignore_errors=True)
    print(f"exported: {target}", flush=True)
    if request.push is not None:
        push(target, request.push, request.private)


def make_aside(target: Path) -> Path:
    making = target.with_name(f"{MAKING}{target.name}-{os.getpid()}")
    with naming_the_target(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        clear_abandoned(target)
        making.mkdir()
    return making


def clear_abandoned(target: Path) -> None:
    """Remove what killed exports of the same name left."""
    for path in target.parent.glob(f"{MAKING}{glob.escape(target.name)}-*"):
        if not Path("/proc", path.name.rpartition("-")[2]).exists():
            shutil.rmtree(path)


def write_model(run: Run, request: Export, folder: Path) -> None:
    print(f"exporting {request.trained.weights}: {announcement(run, request)}", flush=True)
    refuse_damaged(request.trained)
    tokenizer = load_tokenizer_of(run, request.trained)
    WRITERS[request.form](run, request, folder)
    tokenizer.save_pretrained(folder)
    classifies = is_classifier(folder)
    if request.form != "adapter":
        complete_config(folder, tokenizer, dtype_of(request))
    if not classifies:
        generation_config(tokenizer).save_pretrained(folder)
    (folder / "README.md").write_text(model_card(run, request, classifies), encoding="utf-8")


def announcement(run: Run, request: Export) -> str:
    if request.form != "merged":
        return {"copy": "all weights", "adapter": "the adapter alone"}[request.form]
    if not isinstance(run.regime, Qlora):
        return "the adapter merged into its base"
    elsewhere = run.regime.bits == 2 and run.node.gpus and not torch.cuda.is_available()
    note = " Training quantised the base to 2 bits on a GPU, and the export does it on the CPU: the weights may differ slightly." if elsewhere else ""
    return f"the adapter merged into its base, {run.regime.bits}-bit weights dequantised to {request.dtype or 'the precision of training'}.{note}"


def write_copy(run: Run, request: Export, folder: Path) -> None:
    source = Path(request.trained.weights)
    with naming_the_weights(request.trained):
        copy_weights(source, folder, dtype_of(request), request.shard_size)
        meant = header_shapes(source)
    shutil.copy(source / "config.json", folder)
    refuse_other_shapes(meant, folder)


def write_merged(run: Run, request: Export, folder: Path) -> None:
    dtype = dtype_of(request) or by_precision(FROZEN, run.training.precision)
    model = merged(run, request.trained, dtype)
    model.save_pretrained(folder, max_shard_size=request.shard_size)
    refuse_other_size(model.num_parameters(), folder)


def write_adapter(run: Run, request: Export, folder: Path) -> None:
    source = Path(request.trained.weights)
    dtype = dtype_of(request)
    with naming_the_weights(request.trained):
        tensors = {name: tensor if dtype is None else tensor.to(dtype) for name, tensor in load_file(source / ADAPTER_WEIGHTS).items()}
    save_file(tensors, folder / ADAPTER_WEIGHTS, metadata=METADATA)
    values = json.loads((source / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    values["base_model_name_or_path"] = base_name(run, request)
    (folder / ADAPTER_CONFIG).write_text(json.dumps(values, indent=2), encoding="utf-8")


def base_name(run: Run, request: Export) -> str:
    """Where PEFT looks for the base if no other is given. A published adapter must not name a folder of this machine."""
    base = str(run.model.path) if run.model.init == "pretrained" else str(RunDir(Path(request.trained.run_folder)).base)
    return public(base) if request.push is not None else base


WRITERS = {"copy": write_copy, "merged": write_merged, "adapter": write_adapter}


def dtype_of(request: Export) -> torch.dtype | None:
    return None if request.dtype is None else DTYPES[request.dtype]


def is_classifier(folder: Path) -> bool:
    """The metadata in the written files."""
    if (folder / ADAPTER_CONFIG).is_file():
        return bool(json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))["task_type"] == "SEQ_CLS")
    return "ForSequenceClassification" in json.loads((folder / "config.json").read_text(encoding="utf-8"))["architectures"][0]


def complete_config(folder: Path, tokenizer: PreTrainedTokenizerBase, dtype: torch.dtype | None) -> None:
    """The padding token, which a classifier finds the last token by; the dtype of the files where it is another."""
    path = folder / "config.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    values |= {"pad_token_id": tokenizer.pad_token_id, **({} if dtype is None else {"dtype": str(dtype).removeprefix("torch.")})}
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def refuse_other_shapes(meant: dict[str, Shape], folder: Path) -> None:
    written = header_shapes(folder)
    if written != meant:
        differing = sorted(name for name in meant.keys() | written.keys() if meant.get(name) != written.get(name))
        raise RuntimeError(f"{folder}: {len(differing)} tensors differ from those of the model; the first is {differing[0]}")


def refuse_other_size(parameters: int, folder: Path) -> None:
    """Buffers may come on top of the parameters, and tied weights are written once."""
    written = sum(torch.Size(shape).numel() for shape in header_shapes(folder).values())
    if written < parameters:
        raise RuntimeError(f"{folder} holds {written} values, but the model has {parameters}")


def push(folder: Path, repository: str, private: bool) -> None:
    """Upload a finished export; the token is the hub library's own.

    Raises:
        ValueError: when the hub refuses it, or cannot be reached; the export itself stays.
    """
    from huggingface_hub import HfApi

    try:
        url = HfApi().create_repo(repository, private=private, exist_ok=True)
        HfApi().upload_folder(repo_id=repository, folder_path=folder, commit_message="Upload a model exported by regimen")
    except Exception as error:  # the hub's errors, the disk's, and those of whatever HTTP client the hub's library uses
        cause = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(
            f"{repository} could not be pushed to: {cause.rstrip('.')}. Check that the hub can be reached from here, and log in "
            "(`hf auth login`) or set HF_TOKEN to a token that can write there. "
            f"The export in {folder} is complete: push it with `hf upload {repository} {folder}`."
        ) from error
    print(f"pushed: {url}", flush=True)


if __name__ == "__main__":
    sys.exit(perform(load_export, export))
