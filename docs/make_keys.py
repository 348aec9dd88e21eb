"""Writes docs/reference/keys.md from conf/schema.py, the YAML files and conf/llamafactory.py, and docs/guides/llamafactory.md from that table.

python -m docs.make_keys
"""

from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path

from conf.groups import default_choices
from conf.keys import KeyRow, choice_help, field_of, group_help, key_rows, types_of
from conf.llamafactory import NAMES, NEEDLESS
from conf.schema import GROUPS, Composed

DOCS = Path(__file__).resolve().parent
PAGE = DOCS / "reference" / "keys.md"
LLAMAFACTORY_PAGE = DOCS / "guides" / "llamafactory.md"
FEW = 12  # more different defaults than these are not listed
HEAD = """# Keys

Every key of a run. `python -m docs.make_keys` makes this page from `conf/schema.py`, the YAML files in `conf/` and
`conf/llamafactory.py`; change it there. `regimen train --cfg` prints the keys of one run with their values.

- `group=CHOICE` takes a file of a group: `regime=lora`. `group.key=VALUE` sets one value: `regime.rank=16`.
- Lists are written `[a,b]`, nothing is written `null`.
- A size has a unit: `48GB`, `80GiB`, `500MB`. GB counts 1000^3 bytes; GiB and G count 1024^3. A number without unit counts the unit of its row.
- Where choices have different defaults, the first one applies to every choice that is not named behind it.
- `recipe=NAME` sets keys of several groups at once (`conf/recipe`). Without a model, data or recipe, `recipe=demo` is used.
- `hydra.launcher.*` are settings of sweeps (`train -m`): [sweeps.md](../guides/sweeps.md).
"""
LLAMAFACTORY_HEAD = """# Coming from LLaMA-Factory

This table gives, for each of its argument names, the one key that means the same here. A key without a dot takes a choice of that group
(`regime=lora`); the others take values (`regime.rank=16`). Data registries (`dataset_info.json`) can be used unchanged; [data.md](data.md)
lists the few differences. [keys.md](../reference/keys.md) explains every key.
`python -m docs.make_keys` makes this page from `conf/llamafactory.py`; change it there.

`regimen import` translates a whole training file, or the command line after `--`:

```
regimen import llama3_lora_sft.yaml --save mine.yaml
regimen import -- llamafactory-cli train --stage sft --model_name_or_path Qwen/Qwen2.5-0.5B-Instruct --dataset identity
regimen train mine.yaml
```

It prints one line for each argument: the key that it gives, why it has no effect here, or why it is refused. An argument that
cannot mean the same is refused by name, and then no file is written. What the file leaves out has LLaMA-Factory's default, not
regimen's: learning rate 5e-5, a linear schedule without warmup, batch 8, rank 8. The new file holds each of these that differs,
marked `the default there`. `--run` starts the run at once. These differ, and the line of the argument says so:

- Packed samples never see each other, with `neat_packing` or without.
- A template that regimen does not have is replaced by the tokenizer's own.
- Without `bf16`, `fp16` or `pure_bf16` LLaMA-Factory computes in the dtype of the model's files; the translation is
  `training.precision=bf16_amp`.
- `ppo` draws answers from all tokens (no `top_p`, no `top_k`), and its price of divergence is fixed (`stage.kl_coef`).
- Of a DeepSpeed file the stage and the offloading count. Its bucket sizes and other settings are regimen's own.

Refused before anything is translated, with file, line and key: a key that stands twice in a table, at any depth; a number that YAML reads as
another one than stands there (`max_steps: 1:30` is 90 to LLaMA-Factory too, and `010` is 8: write what you mean); aliases (`*name`) that stand
for more than a million characters.

A file of export, predict or chat describes no run. It becomes the command that does the same, in which RUN stands for the run folder.

Tested against values worked out by hand: 51 of its example files, of every stage, each with its path and commit, and 12 more that are
refused by name (`tests/launcher/moving/llamafactory_files.py`): keys, effective batch, optimizer steps, warmup and learning rates; 27 further
sets of arguments and 23 refusals (`test_translate.py`); which tokens are learned (`tests/trainers/data/rows/test_imported_labels.py`). Every
value passes the checks of an override of the command line, and what fails is refused under the name of its argument.
Nothing was trained with LLaMA-Factory beside regimen.
"""
TOP = (("name", "${stage.name}-${regime.name}-${model.name}"), ("output", "outputs"))


def llamafactory_names() -> dict[str, list[str]]:
    """LLaMA-Factory's names by our key."""
    names: dict[str, list[str]] = {}
    for row in NAMES:
        names.setdefault(row.ours, []).append(row.theirs)
    return names


def llamafactory_page() -> str:
    rows = [table_row(f"`{row.theirs}`", f"`{row.ours}`", row.values) for row in NAMES]
    needless = [f"- {codes(row.theirs)}: {row.why}." for row in NEEDLESS]
    head = table_head("LLaMA-Factory", "regimen", "how the values translate")
    return "\n".join([LLAMAFACTORY_HEAD, *head, *rows, "", "## What needs no key", "", *needless, ""])


def page() -> str:
    names = llamafactory_names()
    return "\n".join([HEAD, *top_lines(names), *(line for group in groups() for line in group_lines(group, names))])


def groups() -> list[str]:
    """In the order of a run.yaml."""
    return [field.name for field in fields(Composed) if field.name in GROUPS]


def top_lines(names: dict[str, list[str]]) -> list[str]:
    rows = [table_row(f"`{key}`", "text", f"`{default}`", field_of(Composed, key).comment.help, codes(names.get(key, ()))) for key, default in TOP]
    return ["## The run itself", "", *table_head("key", "type", "default", "meaning", "LLaMA-Factory"), *rows, ""]


def group_lines(group: str, names: dict[str, list[str]]) -> Iterator[str]:
    choices, default = types_of(group), default_choices()[group]
    theirs = f" LLaMA-Factory: {codes(names[group])}." if group in names else ""
    yield from (f"## {group}", "")
    yield f"{group_help(group)} {f'Default: `{default}`.' if default else 'You choose one.'}{theirs}"
    yield ""
    if len(choices) > 1:
        yield from (*table_head(f"`{group}=`", "what it is"), *(table_row(f"`{choice}`", choice_help(group, choice)) for choice, _ in choices), "")
    rows = key_rows(group, names)
    differ = any(len(row.choices) < len(choices) for row in rows)
    head = ("key", "type", "unit or values", "default", "meaning", *(("choices",) if differ else ()), "LLaMA-Factory")
    yield from (*table_head(*head), *(table_row(*key_cells(row, len(choices), differ)) for row in rows), "")


def key_cells(row: KeyRow, every: int, differ: bool) -> list[str]:
    """The cells of one key; `differ`: some keys of its group belong to some choices only."""
    notes = "".join(f" {codes(choices)}: {note}" for note, choices in grouped(row.notes))
    only = codes(row.choices) if len(row.choices) < every else "all"
    cells = [f"`{row.key}`", row.type, row.unit or codes(row.values), defaults(row), row.help + notes]
    return [*cells, *([only] if differ else []), codes(row.llamafactory)]


def defaults(row: KeyRow) -> str:
    """The default of most choices, then those of the others by name."""
    if row.type.startswith("table"):
        return "each choice its own"
    if len(row.defaults) > 1 and all(value == choice for choice, value in row.defaults):
        return "the name of the choice"
    found = sorted(grouped(row.defaults), key=lambda entry: -len(entry[1]))
    if len(found) > FEW:
        return "each choice its own"
    (usual, _), *others = found
    return "; ".join([shown(usual), *(f"{codes(choices)}: {shown(value)}" for value, choices in others)])


def shown(value: str) -> str:
    return "must be set" if value == "???" else f"`{value}`"


def grouped(pairs: Sequence[tuple[str, str]]) -> list[tuple[str, list[str]]]:
    """(choice, text) pairs as texts with the choices that have them, in the order of their first choice."""
    found: dict[str, list[str]] = {}
    for choice, text in pairs:
        found.setdefault(text, []).append(choice)
    return list(found.items())


def codes(words: Sequence[str]) -> str:
    return ", ".join(f"`{word}`" for word in words)


def table_head(*names: str) -> tuple[str, str]:
    return table_row(*names), "|" + "---|" * len(names)


def table_row(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    LLAMAFACTORY_PAGE.write_text(llamafactory_page(), encoding="utf-8")
