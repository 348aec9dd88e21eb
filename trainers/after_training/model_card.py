"""README.md of an exported model: the facts of its run."""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

from conf.evaluations import of_final_model
from conf.records import is_step, read_lines
from conf.request import Export
from conf.run_dir import RunDir
from conf.run_values import run_as_dict
from conf.schema import Evaluation, Qlora, Run

DESCRIBED = ("model", "data", "stage", "regime", "optim", "training", "sharding")  # groups that describe how the weights were made
LIBRARIES = ("torch", "transformers", "peft", "trl", "accelerate", "deepspeed", "bitsandbytes", "hqq")
LOADED_BY = {
    "copy": "AutoModelForCausalLM.from_pretrained(FOLDER)",
    "merged": "AutoModelForCausalLM.from_pretrained(FOLDER)",
    "adapter": "PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(BASE), FOLDER)",
}


def model_card(run: Run, request: Export, classifies: bool) -> str:
    rows = "\n".join(f"| {name} | {value} |" for name, value in facts(run, request).items())
    loaded = LOADED_BY[request.form].replace("ForCausalLM", "ForSequenceClassification" if classifies else "ForCausalLM")
    described = {group: without_paths(values) for group, values in run_as_dict(run).items() if group in DESCRIBED}
    return "\n".join([
        f"---\n{yaml.safe_dump(metadata(run, request, classifies), sort_keys=False)}---\n",
        f"# {run.name}\n",
        f"{form_sentence(run, request)} Trained with regimen.\n",
        f"| | |\n|---|---|\n{rows}\n",
        f"Load it with `{loaded}`; the tokenizer and its chat template are in the same folder as the weights.\n",
        f"Licence: {licence_sentence(run)}\n",
        f"The configuration of the run:\n\n```yaml\n{yaml.safe_dump(described, sort_keys=False, allow_unicode=True)}```\n",
    ])  # fmt: skip


def metadata(run: Run, request: Export, classifies: bool) -> dict[str, Any]:
    """The front matter that the hub reads (https://huggingface.co/docs/hub/model-cards); no licence is claimed."""
    base = {"base_model": public(run.model.path)} if run.model.init == "pretrained" and on_hub(run.model.path) else {}
    return {
        **base,
        "library_name": "peft" if request.form == "adapter" else "transformers",
        "pipeline_tag": "text-classification" if classifies else "text-generation",
        "tags": ["regimen", run.stage.name, run.regime.name],
    }


def facts(run: Run, request: Export) -> dict[str, str]:
    history = progress(RunDir(Path(request.trained.run_folder)), request.trained.step)
    steps = max((entry["step"] for entry in history), default=request.trained.step or 0)
    return {
        "stage": run.stage.name,
        "regime": regime_text(run),
        "base": base_text(run),
        "data sets": ", ".join(str(public(name)) for name in run.data.sets),
        "steps": f"{steps}, each of {run.training.effective_batch} samples of at most {run.data.cutoff} tokens",
        **losses(history, run.evaluation, request.trained.step),
        "precision of training": run.training.precision,
        "seed": str(run.training.seed),
        "versions at export": ", ".join(f"{name} {found}" for name in ("regimen", *LIBRARIES) if (found := installed(name))),
        **({"git commit at export": request.commit} if request.commit else {}),
        "exported from": f"{run.name}, {request.trained.label}",
    }


def installed(name: str) -> str | None:
    """A checkout runs without being installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def regime_text(run: Run) -> str:
    return f"{run.regime.name}, {run.regime.bits} bits" if isinstance(run.regime, Qlora) else run.regime.name


def base_text(run: Run) -> str:
    if run.model.init == "random":
        return f"random weights of the architecture {run.model.name}"
    revision = f", revision {run.model.revision}" if run.model.revision else ""
    return f"{public(run.model.path)}{revision}"


def form_sentence(run: Run, request: Export) -> str:
    dtype = f" in {request.dtype}" if request.dtype else ""
    if request.form == "adapter":
        return f"A LoRA adapter{dtype}. Use it with its base."
    if request.form == "copy":
        return f"All weights{dtype}."
    if isinstance(run.regime, Qlora):
        return (
            f"A LoRA adapter merged{dtype} into its dequantised base. It was trained on {run.regime.bits}-bit weights, so the base has their "
            "dequantised values, not the original ones."
        )
    return f"A LoRA adapter merged{dtype} into its base."


def licence_sentence(run: Run) -> str:
    if run.model.init == "random":
        return "no licence is stated. Training started from random weights."
    return "the licence of the base model applies. It is not known here: see the page of that model."


def progress(run_dir: RunDir, step: int | None) -> list[dict[str, Any]]:
    """What was logged, up to the exported step."""
    return [entry for entry in read_lines(run_dir.progress, is_step).entries if step is None or entry["step"] <= step]


def losses(history: list[dict[str, Any]], evaluation: Evaluation, step: int | None) -> dict[str, str]:
    """First and last of each kind; of a final model that is an earlier checkpoint, the evaluation of that one."""
    found = {name: [entry[key] for entry in history if key in entry] for key, name in (("loss", "training loss"), ("eval_loss", "evaluation loss"))}
    told = {name: f"{values[0]:.4f} at the start, {values[-1]:.4f} at the end" for name, values in found.items() if values}
    kept = of_final_model([entry for entry in history if "eval_loss" in entry], evaluation) if evaluation.best_at_end and step is None else None
    if kept is None:
        return told
    return {
        **told,
        "evaluation loss": f"{found['evaluation loss'][0]:.4f} at the start, {kept['eval_loss']:.4f} at step {kept['step']}, which was kept",
    }


def without_paths(values: Any) -> Any:
    """A card may be published: of a local path it shows the last part alone."""
    if isinstance(values, dict):
        return {key: without_paths(value) for key, value in values.items()}
    if isinstance(values, list):
        return [without_paths(value) for value in values]
    return public(values)


def public(value: Any) -> Any:
    return Path(value).name if isinstance(value, str) and value.startswith(("/", "~", ".")) else value


def on_hub(path: str | None) -> bool:
    return path is not None and not path.startswith(("/", "~", ".")) and not Path(path).is_dir()
