"""The verb import: a training file or command of LLaMA-Factory becomes a file of a run."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from conf.schema import GROUPS
from launcher.composition.compose import compose
from launcher.composition.described import as_file, described, in_grammar, save
from launcher.composition.run_file import read_run_file
from launcher.errors import ConfigError
from launcher.moving.arguments import ENDINGS, read_command, read_file
from launcher.moving.draft import ASSUMED, REFUSED, TRANSLATED, Draft, in_words
from launcher.moving.translate import translate

AFTERWARDS = {
    "do_predict": "regimen predict RUN --data SET answers the prompts of a set with a trained run, or with a model's folder",
    "export_dir": "regimen export RUN --to FOLDER writes a model from a trained run",
    "infer_backend": "regimen chat RUN answers questions with a trained run, or with a model's folder",
}


def import_run(words: Sequence[str], to: Path | None) -> Draft:
    """Translate, say what became of every argument, and write the file, or print it where `to` is None.

    Raises:
        ConfigError: where an argument cannot mean the same here; then nothing is written.
    """
    named = next((word for word in words if word.endswith(ENDINGS) and "=" not in word and not word.startswith("-")), None)
    single = words == [named]
    given = read_file(Path(words[0])) if single else read_command(words)
    refuse_without_training(given)
    draft = translate(given, Path(named or "").parent)
    print("\n".join(report(draft)), file=sys.stderr)
    if draft.refused:
        listed = "\n".join(f"  {name}: {why}." for name, why in draft.refused)
        raise ConfigError(f"{len(draft.refused)} of the arguments cannot mean the same here, so no file is written:\n{listed}")
    values = without_common(draft)
    head = f"Translated from LLaMA-Factory{f' ({named})' if single else ''} by regimen import."
    if to is None:
        print(as_file(values, head, draft.notes), end="")
    else:
        save(values, to, head, draft.notes)
        read_run_file(to)
        print(f"wrote {to}. Check it with `regimen plan {to}`, start it with `regimen train {to}`.")
    return draft


def without_common(draft: Draft) -> dict[str, Any]:
    """The values without those that the file does not state and that both programs have by default; they are composed for it, so they are valid."""
    changed = described(compose(overrides_of(draft)))
    return {key: value for key, value in draft.values.items() if key in changed or key in GROUPS or not is_assumed(draft, key)}


def is_assumed(draft: Draft, key: str) -> bool:
    return draft.notes.get(key, "").startswith(ASSUMED)


def overrides_of(draft: Draft) -> list[str]:
    return [f"{key}={in_grammar(value, key)}" for key, value in draft.values.items()]


def start(draft: Draft) -> int:
    """The translated run, trained here and now."""
    from launcher.launch.foreign import Trust
    from launcher.verbs import train

    return train.train(overrides_of(draft), [], detached=False, trust=Trust(take_over=False, other_owner=False))


def refuse_without_training(given: dict[str, object]) -> None:
    """Files of export, chat and predict describe no run. Raises ConfigError with the command that does the same."""
    if given.get("do_train") or given.get("dataset") is not None:
        return
    for name, line in AFTERWARDS.items():
        if given.get(name):
            raise ConfigError(f"This describes no training ({name} without dataset). {line} (docs/guides/after_training.md).")


def report(draft: Draft) -> list[str]:
    """One line for each argument, in the order of the file."""
    width = max(len(name) for name in draft.given)
    lines = []
    for name in draft.given:
        outcome = draft.outcomes[name]
        sign = {TRANSLATED: "->", REFUSED: "REFUSED:"}.get(outcome.kind, "no effect:")
        lines.append(f"{name:<{width}}  {sign} {outcome.said}")
    assumed = [f"{key}: {in_words(value)}" for key, value in draft.values.items() if is_assumed(draft, key)]
    return [*lines, f"Not stated, and so the default of LLaMA-Factory: {', '.join(assumed)}."] if assumed else lines
