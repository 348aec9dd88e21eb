"""A process that composes and judges for the board, one question after the other: a line of JSON in, a line of JSON out.

It calls what `regimen plan` calls, and stays warm, so that an answer takes a fraction of a start. The board ends it where it takes too long.
"""

import io
import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import yaml

from conf.exit_codes import REFUSED
from conf.private import keep_private
from conf.run_dir import RunDir
from conf.run_values import run_as_dict
from conf.secrets import masked_in
from launcher.board.form import form_of, overrides_of, refuse_outside
from launcher.composition.compose import compose
from launcher.composition.described import as_file, described
from launcher.composition.recorded import flat, recorded_run
from launcher.composition.run_file import foreign_program, read_run_file
from launcher.errors import ConfigError, RegimenError
from launcher.gate.pasting import pasted
from launcher.gate.proposals import MatrixRow, sharding_matrix
from launcher.gate.variants import judging_like
from launcher.launch.plan import LaunchPlan
from launcher.sweep.composing import Composer
from launcher.verbs import plan
from launcher.verbs.plan_text import command_lines, plan_text, recommendation_lines
from launcher.verbs.smaller import smaller_lines
from launcher.words import gib

FILE = "your file.yaml"  # as messages name what the browser sent
FORMS = 32  # changed step by step, whose choices and texts are remembered as they were composed
COMPOSER = Composer((), FORMS)


def judged(question: dict[str, Any]) -> dict[str, Any]:
    """The text of `regimen plan`, the values that the run would have, and what of the plan is a command: that of the ranks, and the batch script."""
    found = unstarted(checked(question))
    values = flat(run_as_dict(found.run))
    choices = {key.removesuffix(".name"): value for key, value in values.items() if key.endswith(".name")}
    forms = {
        "processes": "\n".join(line.strip() for line in command_lines(found, os.environ)[1:]),
        "script": "\n".join(text for _, text in found.files),
    }
    return {"permitted": found.judged.verdict.permitted, "text": plan_text(found, os.environ), "values": form_of(values), "choices": choices, **forms}


def unstarted(overrides: Sequence[str]) -> LaunchPlan:
    """As plan.unstarted: the change of a number or a truth composes nothing anew."""
    return plan.unstarted(overrides, (), lambda texts, _: COMPOSER.composed(texts))


def proposed(question: dict[str, Any]) -> dict[str, Any]:
    """What would fit instead: the lines of `regimen plan`, and the whole form that each change leads to."""
    overrides = checked(question)
    decided = unstarted(overrides).judged
    found = plan.proposals(decided, overrides)
    forms = [as_form(pasted(overrides, change.overrides)) for change in found]
    rows = [{"words": " ".join(change.overrides), "form": form} for change, form in zip(found, forms, strict=True)]
    return {"text": "\n".join(recommendation_lines(decided, found, overrides)), "proposals": rows}


def as_form(overrides: Sequence[str]) -> dict[str, str]:
    return form_of(described(compose(overrides)))


def matrix(question: dict[str, Any]) -> dict[str, Any]:
    """Every regime under every sharding, as `regimen plan --matrix` judges those of one sharding."""
    decided = unstarted(checked(question)).judged
    found = sharding_matrix(decided.run, decided.facts, judging_like(decided))
    columns = {sharding: [matrix_cell(row) for row in rows] for sharding, rows in found.items()}
    return {"columns": columns}


def matrix_cell(row: MatrixRow) -> dict[str, Any]:
    """`need`: empty for choices that cannot work together. `chosen`: the run is so already."""
    need = "" if row.predicted is None else gib(row.predicted)
    return {"name": row.name, "permitted": row.permitted, "short": row.short, "need": need, "why": row.why, "chosen": not row.overrides}


def cell(question: dict[str, Any]) -> dict[str, Any]:
    """The whole form that one cell of the matrix leads to."""
    overrides = checked(question)
    decided = unstarted(overrides).judged
    rows = sharding_matrix(decided.run, decided.facts, judging_like(decided)).get(question["sharding"], ())
    row = next((row for row in rows if row.name == question["regime"]), None)
    if row is None:
        raise ConfigError("There is no such cell any more. Open the matrix again.")
    return {"form": as_form(pasted(overrides, row.overrides))}


def differing(question: dict[str, Any]) -> dict[str, Any]:
    """The keys that are not the same in all of the recorded runs that can be read, each with its value in each of them; why others cannot."""
    runs, faults = dict[str, dict[str, Any]](), list[str]()
    for path in question["paths"]:
        try:
            runs[path] = flat(run_as_dict(recorded_run(RunDir(Path(path)))))
        except RegimenError as error:
            faults.append(str(error))
    names = dict.fromkeys(key for run in runs.values() for key in run)
    texts = {path: form_of(run) for path, run in runs.items()}
    keys = [[key, *(text.get(key, "") for text in texts.values())] for key in names if len({json.dumps(run.get(key)) for run in runs.values()}) > 1]
    return {"paths": [*runs], "keys": keys, "faults": faults}


def asked(question: dict[str, Any]) -> dict[str, Any]:
    """A recorded run as a file of its choices and changed values: what was asked for, and nothing of what followed from it."""
    return {"text": as_file(described(recorded_run(RunDir(Path(question["path"])))), "What was asked for; everything else is the default.")}


def saved(question: dict[str, Any]) -> dict[str, Any]:
    run = compose(checked(question))
    return {"text": as_file(described(run), "A run of regimen. Overrides may follow it: regimen train FILE.yaml optim.lr=1e-4")}


def smaller(question: dict[str, Any]) -> dict[str, Any]:
    """What needs less than a run that ran out of memory, as the command line prints it at the end of such a run."""
    return {"text": "\n".join(smaller_lines(RunDir(Path(question["path"]))))}


def loaded(question: dict[str, Any]) -> dict[str, Any]:
    """The form that a file describes: one of a run, a run.yaml, or a training file of LLaMA-Factory or axolotl."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, FILE)
        try:
            path.write_text(question["text"], encoding="utf-8")
        except UnicodeEncodeError as error:
            raise ConfigError("The file holds halves of characters, which are no text. Save it as UTF-8, and load it again.") from error
        try:
            return {"form": as_form([line.text for line in read_run_file(translated(path))])}
        except RegimenError as error:
            raise type(error)(str(error).replace(f"{folder}/", "")) from error


def translated(path: Path) -> Path:
    try:
        theirs = foreign_program(yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader))
    except (yaml.YAMLError, RecursionError):
        return path  # whose reader says what is wrong with it
    if theirs is None:
        return path
    from launcher.verbs.import_run import import_run

    ours = path.with_name("translated.yaml")
    with redirect_stdout(io.StringIO()):  # where it wrote the file, which nobody keeps
        import_run([str(path)], ours)
    return ours


def alike(question: dict[str, Any]) -> dict[str, Any]:
    """The form of a run that was recorded."""
    return {"form": as_form([line.text for line in read_run_file(Path(question["path"]))])}


def checked(question: dict[str, Any]) -> list[str]:
    """The overrides of the form, whose run stays within the folders of the board."""
    overrides = overrides_of(question["form"])
    refuse_outside(question["form"], Path.cwd(), [Path(root) for root in question["roots"]])
    return overrides


ANSWERS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "plan": judged,
    "proposals": proposed,
    "save": saved,
    "load": loaded,
    "like": alike,
    "smaller": smaller,
    "matrix": matrix,
    "cell": cell,
    "differ": differing,
    "asked": asked,
}


def answer(question: dict[str, Any]) -> dict[str, Any]:
    """What was found out; of bad input, the sentence and the exit code of the command line. `told`: what it prints besides."""
    told = io.StringIO()
    try:
        with redirect_stdout(told), redirect_stderr(told):
            found = ANSWERS[question["ask"]](question)
        code = REFUSED if found.get("permitted") is False else 0
        return masked({"code": code, "error": "", "told": told.getvalue(), **found})
    except RegimenError as error:
        return masked({"code": error.exit_code, "error": str(error), "told": told.getvalue()})
    except FileNotFoundError as error:  # a run that is removed meanwhile
        return masked({"code": ConfigError.exit_code, "error": f"{error.filename} is not there any more. Reload the page.", "told": told.getvalue()})


def masked(values: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = masked_in(values)
    return found


def main() -> None:
    keep_private()
    for line in sys.stdin:
        said = json.dumps(answer(json.loads(line)))
        print(said, flush=True)
