"""The verb import: a training file or command of LLaMA-Factory, or a training file of axolotl, becomes a file of a run."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from conf.schema import GROUPS
from launcher.composition.compose import compose
from launcher.composition.described import as_file, described, save
from launcher.composition.run_file import read_run_file
from launcher.errors import ConfigError
from launcher.moving import afterwards
from launcher.moving.arguments import ENDINGS, read_command, read_file
from launcher.moving.axolotl import AXOLOTL, is_axolotl
from launcher.moving.draft import ASSUMED, REFUSED, TRANSLATED, Draft, in_words
from launcher.moving.translate import LLAMA_FACTORY
from launcher.verbs.import_checks import overrides_of, refuse_wrong_options, refuse_wrong_values
from launcher.words import on_one_line, shell_line


def import_run(words: Sequence[str], to: Path | None, starts: bool = False) -> Draft:
    """Translate, say what became of every argument, and write the file, or print it where `to` is None. `starts`: the run is started afterwards.

    Raises:
        ConfigError: where an argument cannot mean the same here; then nothing is written.
    """
    named = next((word for word in words if word.endswith(ENDINGS) and "=" not in word and not word.startswith("-")), None)
    single = words == [named]
    given = read_file(Path(words[0])) if single else read_command(words)
    verb = afterwards.verb_of(given)
    if verb is not None:
        return import_afterwards(verb, given, "--save" if to is not None else "--run" if starts else None)
    program = AXOLOTL if is_axolotl(given) else LLAMA_FACTORY
    draft = program.translate(given, Path(named or "").parent)
    refuse_wrong_values(draft)
    print("\n".join(report(draft, program.name)), file=sys.stderr)
    refuse_refused(draft, "no file is written")
    values = without_common(draft)
    head = f"Translated from {program.name}{f' ({on_one_line(str(named))})' if single else ''} by regimen import."
    if to is None:
        print(as_file(values, head, draft.notes), end="")
    else:
        save(values, to, head, draft.notes)
        read_run_file(to)
        print(f"wrote {to}. Check it with `regimen plan {to}`, start it with `regimen train {to}`.")
    return draft


def without_common(draft: Draft) -> dict[str, Any]:
    """The values without those that the file does not state and that both programs have by default; they are composed for it, so they are valid."""
    changed = described(compose(overrides_of(draft.values)))
    return {key: value for key, value in draft.values.items() if key in changed or key in GROUPS or not is_assumed(draft, key)}


def is_assumed(draft: Draft, key: str) -> bool:
    return draft.notes.get(key, "").startswith(ASSUMED)


def start(draft: Draft) -> int:
    """The translated run, trained here and now."""
    from launcher.launch.foreign import Trust
    from launcher.verbs import train

    return train.train(overrides_of(draft.values), [], detached=False, trust=Trust(take_over=False, other_owner=False))


def import_afterwards(verb: str, given: dict[str, Any], option: str | None) -> Draft:
    """A file of export, predict or chat describes no run: print the command that does the same."""
    draft = afterwards.translate(verb, given)
    refuse_wrong_options(draft)
    print("\n".join(report(draft, "LLaMA-Factory")), file=sys.stderr)
    refuse_refused(draft, "no command is written")
    if option is not None:
        what = {"--save": "file of a run to save", "--run": "run to start"}[option]
        raise ConfigError(f"This describes no training but {verb}, so there is no {what}. Leave out {option} to see the command.")
    print(shell_line(["regimen", *afterwards.words_of(verb, draft)]))
    return draft


def refuse_refused(draft: Draft, instead: str) -> None:
    if draft.refused:
        listed = "\n".join(f"  {on_one_line(f'{name}: {why}')}." for name, why in draft.refused)
        raise ConfigError(f"{len(draft.refused)} of the arguments cannot mean the same here, so {instead}:\n{listed}")


def report(draft: Draft, program: str) -> list[str]:
    """One line for each argument, in the order of the file, with what could move a terminal's cursor as it is written."""
    shown = {name: on_one_line(name) for name in draft.given}
    width = max(map(len, shown.values()))
    lines = []
    for name, outcome in ((name, draft.outcomes[name]) for name in draft.given):
        sign = {TRANSLATED: "->", REFUSED: "REFUSED:"}.get(outcome.kind, "no effect:")
        lines.append(f"{shown[name]:<{width}}  {sign} {on_one_line(outcome.said)}")
    assumed = [f"{key}: {in_words(value)}" for key, value in draft.values.items() if is_assumed(draft, key)]
    return [*lines, f"Not stated, and so the default of {program}: {', '.join(assumed)}."] if assumed else lines
