"""`python -m trainers.verbs.evaluate FOLDER`: tasks of lm-evaluation-harness on a trained model."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from conf.request import Evaluate, load_evaluate
from conf.run_dir import write_text_atomically
from conf.schema import Run
from trainers.after_training.trained import load_tokenizer_of, load_trained
from trainers.errors import DataError
from trainers.verbs.frame import naming_the_target, perform


def evaluate(run: Run, request: Evaluate) -> None:
    """Raises ValueError for a task that is not there, or weights that cannot be used."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    target = Path(request.target)
    tasks = TaskManager(include_path=request.include)
    refuse_unknown(request.tasks, set(tasks.all_tasks))
    with naming_the_target(target):  # before hours of work
        target.parent.mkdir(parents=True, exist_ok=True)
    model = HFLM(pretrained=load_trained(run, request.trained), tokenizer=load_tokenizer_of(run, request.trained), batch_size=request.batch)
    with naming_the_tasks(request.tasks):
        found = simple_evaluate(
            model=model,
            tasks=[*request.tasks],
            num_fewshot=request.shots,
            limit=request.limit,
            apply_chat_template=request.chat,
            task_manager=tasks,
            bootstrap_iters=1000,
            log_samples=False,
            random_seed=run.training.seed,
        )
    results = kept(run, request, found)
    write_text_atomically(target, json.dumps(results, indent=1, default=str) + "\n")
    print("\n".join(lines(results["results"])))
    print(f"results: {target}", flush=True)


@contextmanager
def naming_the_tasks(tasks: tuple[str, ...]) -> Iterator[None]:
    """Raises DataError where the data of a task is on the hub and cannot be loaded."""
    try:
        yield
    except (ConnectionError, FileNotFoundError) as error:  # of datasets: no network, or no such set
        cause = str(error).rstrip(".")
        raise DataError(f"--tasks {','.join(tasks)}: their data cannot be loaded: {cause}. Load it once where the hub can be reached.") from error


def refuse_unknown(wanted: tuple[str, ...], there: set[str]) -> None:
    import difflib

    for task in wanted:
        if task not in there:
            near = difflib.get_close_matches(task, there, n=3)
            hint = f"Near names: {', '.join(near)}." if near else "`lm_eval --tasks list` shows all of them."
            raise ValueError(f"--tasks {task} is not a task. {hint} Use --include FOLDER for task files of your own.")


def kept(run: Run, request: Evaluate, found: dict[str, Any]) -> dict[str, Any]:
    """The numbers, and how they were measured."""
    return {
        "run": request.trained.run_folder,
        "weights": request.trained.label,
        "stage": run.stage.name,
        "results": found["results"],
        **{key: found[key] for key in ("versions", "n-shot", "n-samples", "higher_is_better") if key in found},
        "limit": request.limit,
        "chat_template": request.chat,
        "lm_eval": version("lm-eval"),
    }


def lines(results: dict[str, dict[str, Any]]) -> list[str]:
    """task, metric, value and its standard error."""
    table = []
    for task, values in results.items():
        for name, value in values.items():
            metric, _, which = name.partition(",")
            if isinstance(value, float) and not metric.endswith("_stderr"):
                error = values.get(f"{metric}_stderr,{which}")
                table.append(f"{task:<24}{metric:<20}{value:.4f}{f' ± {error:.4f}' if isinstance(error, float) else ''}")
    return table


if __name__ == "__main__":
    sys.exit(perform(load_evaluate, evaluate))
