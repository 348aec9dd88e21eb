"""What a training file of LLaMA-Factory, or its command line, states: argument names and values."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from yaml import ScalarNode

from launcher.composition.read_yaml import nodes_of, odd_number, refuse_odd_numbers, refuse_repeated_keys, values_of
from launcher.errors import ConfigError
from launcher.words import on_one_line

PROGRAMS = ("llamafactory-cli", "lmf", "llamafactory")
VERBS = ("train", "export", "chat", "api", "webchat", "eval", "webui")
ENDINGS = (".yaml", ".yml", ".json")


def read_file(path: Path) -> dict[str, Any]:
    """The arguments of a file, YAML or JSON.

    Raises:
        ConfigError: where it cannot be read, is no table, holds a key twice, or a number that YAML reads as another one.
    """
    try:
        content = content_of(path, path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}. Check the path.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8. Save it as UTF-8.") from error
    except (yaml.YAMLError, json.JSONDecodeError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read: {' '.join(str(error).split())}. Fix that line.") from error
    except ValueError as error:  # Python reads no number of more than 4300 digits, and YAML no day such as 2026-13-01
        raise ConfigError(f"{path} holds a number or a date that cannot be read: {str(error).split(';')[0]}. Fix it.") from error
    if not isinstance(content, dict) or not content:
        raise ConfigError(f"{path} holds no arguments. A training file of LLaMA-Factory has lines such as `stage: sft`.")
    return {str(name): value for name, value in content.items()}


def content_of(path: Path, text: str) -> Any:
    """Read once its nodes are known to be few enough, and their keys to be different."""
    is_json = path.suffix == ".json"
    content = json.loads(text) if is_json else None
    root = nodes_of(text.replace("\t", " ") if is_json else text, str(path))  # JSON is YAML too, but for tabs between its words
    refuse_repeated_keys(root, str(path))
    if is_json:
        return content
    content = values_of(text)
    refuse_odd_numbers(root, str(path))
    return content


def read_command(words: Sequence[str]) -> dict[str, Any]:
    """The arguments of `llamafactory-cli train FILE key=value ...` or `... --key value ...`, with or without the program and the verb.

    Raises:
        ConfigError: for a word that is neither.
    """
    rest = [*words]
    while rest and (rest[0].rsplit("/", 1)[-1] in PROGRAMS or ("=" in rest[0] and rest[0].split("=")[0].isupper())):
        rest.pop(0)  # the program, and variables such as FORCE_TORCHRUN=1 before it
    if rest and rest[0] in VERBS:
        rest.pop(0)
    found = read_file(Path(rest.pop(0))) if rest and rest[0].endswith(ENDINGS) else {}
    while rest:
        word = rest.pop(0)
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            if not equals:
                value = rest.pop(0) if rest and not rest[0].startswith("--") else "true"
        elif "=" in word:
            name, _, value = word.partition("=")
        else:
            raise ConfigError(f"{word!r} is not an argument of LLaMA-Factory. They have the forms --key value and, after a file, key=value.")
        found[name.replace("-", "_")] = scalar(name, value)
    if not found:
        raise ConfigError("There is nothing to translate. Write: regimen import FILE.yaml, or: regimen import -- llamafactory-cli train ...")
    return found


def scalar(name: str, text: str) -> Any:
    """The value of a word of a command line: a number, true, false, null, or the text.

    Raises:
        ConfigError: for a number that YAML reads as another one.
    """
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if not isinstance(node, ScalarNode):
            return text if node is not None else None
        value, said = values_of(text), odd_number(node)
    except (yaml.YAMLError, RecursionError, ValueError):
        return text
    if said is not None:
        raise ConfigError(f"{on_one_line(name)}: {said}")
    return value if value is None or isinstance(value, (bool, int, float)) else text


def deepspeed_form(stated: Any, beside: Path) -> Mapping[str, Any] | str:
    """The settings of DeepSpeed's file where it is there, otherwise its name."""
    if isinstance(stated, dict):
        return stated
    for folder in (Path(), beside):
        path = folder / str(stated)
        if path.is_file():
            return read_file(path)
    return str(stated)
