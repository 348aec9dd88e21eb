"""The verbs that ask a trained model something: predict, evaluate, chat."""

import hashlib
import importlib.util
import json
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from conf.constants import ADAPTER_CONFIG, GENERATED
from conf.request import Chat, Evaluate, Predict, Sampling
from conf.run_values import as_settled, run_as_dict
from conf.schema import Data, Run
from conf.stages import Loss, stage_row
from launcher.composition.compose import parsed, refuse_additions, refuse_secrets
from launcher.composition.recorded import one_value, refuse_unknown, with_values
from launcher.errors import ConfigError, DataError
from launcher.facts.data import has_sets_of_hub, refuse_absent_sets
from launcher.launch.verb_process import run_verb
from launcher.rules.ranges import check_given
from launcher.verbs.weights import Found, find_usable, reads_hub

FILE_NAME = 200  # characters of the tasks' names in a file name, which ends at 255 bytes

# A prediction may differ from its run only in these keys: they say what is predicted, not what was trained.
ASKED = ("data.sets", "data.folder", "data.registry", "data.max_samples", "data.cutoff")


def predict(
    name: str,
    output: Path | None,
    *,
    sets: Sequence[str],
    overrides: Sequence[str],
    everything: bool,
    to: Path | None,
    batch: int,
    sampling: Sampling,
    base: bool = False,
) -> int:
    refuse_absent_packages("predict", "the packages of its scores (ROUGE, BLEU)", {"rouge_score": "rouge-score", "sacrebleu": "sacrebleu"})
    refuse_bad_sampling(sampling, batch)
    found = find_usable(name, output, base)
    refuse_scorer(found, "predict")
    run = asked_run(found.run, sets, overrides)
    if not found.recorded and run.data == found.run.data:
        raise ConfigError(f"{found.weights} is a model folder, and no run says which samples to ask. Name sets with --data SET.")
    held_out = found.recorded and run.data == found.run.data and holds_out(run) and not everything
    asked = run.data if held_out else replace(run.data, evaluation_sets=[])
    refuse_absent(asked, "--data" if sets else "data.sets")
    unnamed = Predict(found.as_request, "", batch, held_out, sampling)
    target = place_for(found, to, found.run_dir.predictions / f"{found.label}-{fingerprint(run, unnamed)}")
    named = reads_hub(found) or has_sets_of_hub(asked)
    return run_verb("predict", run, replace(unnamed, target=str(target)), os.environ, needs_hub=from_hub(run), from_hub=named)


def place_for(found: Found, to: Path | None, in_run: Path) -> Path:
    """Results go into the run's own folder, or into the one that --to names; nothing is written into a model folder."""
    if to is None and not found.recorded:
        raise ConfigError(f"{found.weights} is a model folder, and nothing is written into it. Say where the results go with --to.")
    return (to or in_run).absolute()


def holds_out(run: Run) -> bool:
    return run.data.validation_share > 0 or run.data.evaluation_sets != []


def asked_run(recorded: Run, sets: Sequence[str], overrides: Sequence[str]) -> Run:
    """The recorded run with the data of this prediction.

    Raises:
        ConfigError: for an unknown key, or one that would change more than the question.
    """
    refuse_additions(overrides)
    refuse_secrets(overrides)
    values = run_as_dict(recorded)
    given = {override.key_or_group: one_value(override) for override in parsed(overrides)}
    for key in given:
        refuse_unknown(values, key)
        if key not in ASKED:
            raise ConfigError(f"{key} belongs to the training of this run. Use only {', '.join(ASKED)}.")
    if sets and "data.sets" in given:
        raise ConfigError("--data and data.sets both name the sets. Give one of them.")
    asked = as_settled(with_values(values, {**given, **({"data.sets": [*sets]} if sets else {})}))
    check_given(asked, given)
    return asked


def refuse_absent(data: Data, option: str) -> None:
    """Refuse sets that are not there, under the name of the option that names them.

    Raises:
        ConfigError, DataError: for a set that cannot be found or holds nothing.
    """
    try:
        refuse_absent_sets(data)
    except (ConfigError, DataError) as error:
        raise type(error)(re.sub(r"^data\.sets\b", option, str(error))) from error


def fingerprint(run: Run, request: Predict) -> str:
    """Names the folder of a prediction: the same question goes on where it was interrupted, another begins anew."""
    asked = json.dumps([asdict(run.data), asdict(request.sampling), request.held_out], sort_keys=True)
    return hashlib.sha256(asked.encode()).hexdigest()[:8]


def evaluate(
    name: str,
    output: Path | None,
    *,
    tasks: Sequence[str],
    include: Path | None,
    shots: int | None,
    limit: int | None,
    to: Path | None,
    batch: int,
    chat: bool,
    base: bool = False,
) -> int:
    refuse_absent_packages("evaluate", "lm-evaluation-harness", {"lm_eval": "lm-eval"})
    if batch < 1:
        raise ConfigError(f"--batch {batch} is out of range. It must be at least 1.")
    if include is not None and not include.is_dir():
        raise ConfigError(f"--include {include} is not a folder. Give the folder that holds your task files.")
    found = find_usable(name, output, base)
    refuse_scorer(found, "evaluate")
    target = place_for(found, to, found.run_dir.evaluations / f"{found.label}-{'-'.join(tasks)[:FILE_NAME]}.json")
    if target.exists():
        raise ConfigError(f"{target} exists already, and nothing is overwritten. Remove it, or name another file with --to.")
    folder = None if include is None else str(include.absolute())
    request = Evaluate(found.as_request, str(target), tuple(tasks), folder, shots, limit, batch, chat)
    return run_verb("evaluate", found.run, request, os.environ, needs_hub=True, from_hub=reads_hub(found))


def chat(name: str, output: Path | None, *, system: str | None, sampling: Sampling, base: bool = False) -> int:
    refuse_bad_sampling(sampling, 1)
    found = find_usable(name, output, base)
    refuse_scorer(found, "chat")
    return run_verb("chat", found.run, Chat(found.as_request, system, sampling), os.environ, needs_hub=from_hub(found.run), from_hub=reads_hub(found))


def from_hub(run: Run) -> bool:
    return run.model.init == "pretrained" or run.data.sets != [GENERATED]


def refuse_scorer(found: Found, verb: str) -> None:
    """The files of a reward model show that it is one. Its base is loaded with a head for scores, as in training."""
    if found.base:
        if stage_row(found.run.stage.name).loss is Loss.SCORE:
            raise ConfigError(f"{found.run_dir.path} trained a reward model (stage={found.run.stage.name}), so {verb} cannot use its base either.")
        return
    file = found.weights / (ADAPTER_CONFIG if found.is_adapter else "config.json")
    text = file.read_text(encoding="utf-8")
    if "SEQ_CLS" in text or "ForSequenceClassification" in text:
        raise ConfigError(
            f"{found.weights} is a reward model (stage={found.run.stage.name}). It outputs a score and cannot generate text, so {verb} cannot use it."
        )


def refuse_bad_sampling(sampling: Sampling, batch: int) -> None:
    for option, value, good, expected in (
        ("--batch", batch, batch >= 1, "at least 1"),
        ("--max-new-tokens", sampling.max_new_tokens, sampling.max_new_tokens >= 1, "at least 1"),
        ("--temperature", sampling.temperature, 0 <= sampling.temperature < float("inf"), "at least 0; 0 always chooses the likeliest token"),
        ("--top-p", sampling.top_p, 0 < sampling.top_p <= 1, "above 0 and at most 1"),
        ("--seed", sampling.seed, 0 <= sampling.seed < 2**32, "between 0 and 2^32 - 1"),
    ):
        if not good:
            raise ConfigError(f"{option} {value} is out of range. It must be {expected}.")


def refuse_absent_packages(verb: str, what: str, packages: dict[str, str]) -> None:
    """The packages are looked for and not imported, since an import takes seconds."""
    absent = [name for module, name in packages.items() if importlib.util.find_spec(module) is None]
    if absent:
        raise ConfigError(f"{verb} needs {what}. Install it with `pip install {' '.join(absent)}`.")
