"""A file of one's own run: YAML with one key or choice a line, as on the command line, where overrides may follow it.

    stage: sft
    regime: lora
    regime.rank: 32
    optim: {lr: 1e-4}   # the same as optim.lr: 1e-4

The run.yaml of any run is such a file too.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException
from yaml import MappingNode, Node, ScalarNode, SequenceNode

from conf.choices import subtypes
from conf.llamafactory import row_of_name, row_of_needless
from conf.new_keys import with_new_keys
from conf.run_values import composed_from_dict
from conf.schema import GROUPS, Composed
from launcher.composition.described import CHOICES, described, in_grammar, quoted
from launcher.composition.mistakes import first_line, meant, unknown_key
from launcher.composition.names import known_keys
from launcher.composition.read_yaml import nodes_of, refuse_repeated_keys, refuse_what_is_not_read, values_of
from launcher.composition.values import type_of
from launcher.errors import ConfigError

ENDINGS = (".yaml", ".yml")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)  # YAML 1.1 takes 1e-4 for a text
WORDS = {"null": "null", "~": "null", "": "null", "true": "true", "false": "false"}
FOREIGN = 2  # so many names of LLaMA-Factory make a file one of its own
OF_AXOLOTL = "base_model"  # each of its training files names the model so


@dataclass(frozen=True)
class Line:
    """One override of a file, and where it stands there."""

    key: str
    text: str  # key=value as Hydra's grammar reads it
    place: str


def is_run_file(text: str) -> bool:
    """Whether a word of the command line names a file of a run: it ends as YAML does, and holds no `=`."""
    return "=" not in text and text.endswith(ENDINGS)


def read_run_file(path: Path) -> list[Line]:
    """The overrides of a file, in its order; of the run.yaml of a run folder, those that describe that run.

    Raises:
        ConfigError: naming file, line and key of what is not a key or a choice, stands twice, or cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
        root = nodes_of(text, str(path))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}. Check the path.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8. Save it as UTF-8.") from error
    except RecursionError as error:
        raise ConfigError(f"{path} is nested too deeply to be read. A file of a run holds keys and their values.") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}. Fix that line.") from error
    if not isinstance(root, MappingNode) or not root.value:
        raise ConfigError(f"{path} holds no keys. Write one a line, such as `regime: lora` or `optim.lr: 1e-4`.")
    refuse_foreign(path, root)
    refuse_what_is_not_read(root, str(path))
    if is_recorded(root):
        refuse_repeated_keys(root, str(path))
        return [Line(key, f"{key}={in_grammar(value, key)}", str(path)) for key, value in described(recorded(path, text)).items()]
    lines = list(lines_of(path, root))
    refuse_repeated(lines)
    refuse_repeated_keys(root, str(path))
    return lines


def is_recorded(root: MappingNode) -> bool:
    """Whether the file is what regimen itself records of a run: every group is a table there."""
    tables = {key.value for key, value in root.value if isinstance(value, MappingNode)}
    return set(GROUPS) <= tables | {"hang"}


def recorded(path: Path, text: str) -> Composed:
    """The run that a run.yaml holds, wherever it lies.

    Raises:
        ConfigError: where it is damaged, or another version wrote it.
    """
    try:
        return composed_from_dict(with_new_keys(values_of(text)))
    except InterpolationResolutionError as error:
        raise ConfigError(f"{error.full_key or 'A key'} of {path} cannot be resolved: {first_line(error)}. Set the variable.") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}. Fix that line.") from error
    except (KeyError, TypeError, ValueError, OmegaConfBaseException) as error:
        raise ConfigError(f"{path} cannot be read ({first_line(error)}). It is damaged, or a different version of regimen wrote it.") from error


def foreign_program(root: Node | None) -> tuple[str, list[str]] | None:
    """Whose file it is where it is none of regimen, and the names by which that is known; two of LLaMA-Factory's own are needed."""
    keys = [key.value for key, _ in root.value] if isinstance(root, MappingNode) else []
    if OF_AXOLOTL in keys:
        return "axolotl", [OF_AXOLOTL]
    theirs = [key for key in keys if key not in known_keys() and (row_of_name(key) or row_of_needless(key))]
    return ("LLaMA-Factory", theirs) if len(theirs) >= FOREIGN else None


def refuse_foreign(path: Path, root: MappingNode) -> None:
    found = foreign_program(root)
    if found is not None:
        program, names = found
        raise ConfigError(f"{path} is a file of {program} ({', '.join(names[:3])}, ...). Translate it: regimen import {path} --save my.yaml")


def refuse_repeated(lines: Sequence[Line]) -> None:
    seen: dict[str, Line] = {}
    for line in lines:
        if line.key in seen:
            raise ConfigError(f"{line.place}: {line.key} stands there a second time; first in {seen[line.key].place}. Remove one of them.")
        seen[line.key] = line


def lines_of(path: Path, root: MappingNode) -> Iterator[Line]:
    for key, value in root.value:
        name, place = str(key.value), f"{path}, line {key.start_mark.line + 1}"
        if name in GROUPS and isinstance(value, MappingNode):
            yield from lines_of_group(path, name, value)
        elif name == "defaults":
            raise ConfigError(f"{place}: a file of a run has no defaults list. Write each choice on a line of its own, such as `regime: lora`.")
        else:
            yield line_of(name, value, place)


def lines_of_group(path: Path, group: str, table: MappingNode) -> Iterator[Line]:
    """The keys of a group as a table; `name` there is the choice, where it decides the keys."""
    for key, value in table.value:
        field, place = str(key.value), f"{path}, line {key.start_mark.line + 1}"
        yield line_of(group if field == "name" and group in subtypes() else f"{group}.{field}", value, place)


def line_of(key: str, value: Node, place: str) -> Line:
    whole = ".".join(key.split(".")[:2])
    if whole not in known_keys() and key not in CHOICES:
        said = unknown_key(key, value.value if isinstance(value, ScalarNode) else None)
        raise ConfigError(f"{place}: {said}")
    if key in CHOICES and not isinstance(value, ScalarNode) and key != "recipe":
        raise ConfigError(f"{place}: {key} needs exactly one choice, such as `{key}: NAME`. {meant(key)}".rstrip())
    return Line(key, f"{key}={written(key, value)}", place)


def written(key: str, node: Node) -> str:
    """A value of YAML in Hydra's grammar, read by the type of its key: a text stays as it stands, be it 1.10 or yes."""
    if isinstance(node, SequenceNode):
        return f"[{','.join(written(f'{key}[0]', entry) for entry in node.value)}]"
    if isinstance(node, MappingNode):
        return "{" + ",".join(f"{name.value}:{written('', value)}" for name, value in node.value) + "}"
    assert isinstance(node, ScalarNode)
    raw = str(node.value)
    if node.style in ("'", '"', "|", ">"):
        return quoted(raw)
    word = WORDS.get(raw.lower())
    if word == "null" or key in CHOICES:
        return raw if word != "null" else "null"
    if type_of(key) == "str":
        return quoted(raw)
    return word or (raw if NUMBER.fullmatch(raw) else quoted(raw))


def with_files(overrides: Sequence[str], places: dict[str, str]) -> list[str]:
    """The overrides with what files of a run hold in their places. Where each key of a file stands is added to `places`."""
    given: list[str] = []
    for text in overrides:
        if not is_run_file(text) or not Path(text).exists():
            given.append(text)
            continue
        lines = read_run_file(Path(text))
        given += [line.text for line in lines]
        places.update({line.key: line.place for line in lines})
    return given


def with_place(message: str, places: Mapping[str, str]) -> str:
    """The message, and where the key that it is about stands in a run file."""
    if any(place in message for place in places.values()):
        return message
    about = [key for key in places if re.search(rf"(?<![\w.]){re.escape(key)}(?![\w.])", message)]
    return f"{message} ({max(about, key=len)}: {places[max(about, key=len)]})" if about else message
