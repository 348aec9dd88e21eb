"""Every key of the schema with values that nobody should give: a sentence says what the key accepts, or the run means what was written."""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import fields, replace
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from conf.choices import subtypes
from conf.hosts import with_nodes
from conf.schema import PLAIN_GROUPS, Composed
from conf.sizes import with_sizes
from launcher.composition.compose import compose, compose_config, parsed, refuse_no_choice, typed_run
from launcher.composition.mistakes import first_line
from launcher.composition.names import field_type
from launcher.composition.values import value_message
from launcher.errors import ConfigError, RegimenError
from launcher.rules.hosts import refuse_hosts_values, refuse_no_hosts
from launcher.rules.ranges import check_values
from launcher.rules.slurm import refuse_slurm_values

DEMO = ("model=demo", "data=demo", "node=cpu")
# Words of OmegaConf, Hydra and Python about a value: none of them tells a user what to write.
RAW = ("Cannot ", "of type", "could not be", "not a valid", "dereferencing", "ListConfig", "DictConfig", "viable", "Optional", "Errno", "object")
HUGE = "99999999999999999999"
FEW = ("[a,[1]]", "' '", HUGE)
MANY = (
    *("[]", "{a: 1}", "''", "null", "-1", f"-{HUGE}", "0", "2", "1.5", "1e400", ".nan", "nan", "-inf", "true", "yes", "x", "'2'", "'学习'"),
    *("'a\\nb'", "1e-320"),
)


def keys_with_choice() -> Iterator[tuple[str, tuple[str, ...]]]:
    """Every key once, and the choice that has it."""
    yield from ((key, ()) for key in ("name", "output"))
    for group, node in PLAIN_GROUPS.items():
        yield from ((f"{group}.{field.name}", ()) for field in fields(node))
    needs = {"ppo": ("stage.reward_model=some/model",), "grpo": ("stage.rewards=[exact_answer]",), "hosts": ("cluster.hosts=[a,b]",)}
    for group, types in subtypes().items():
        first = {field.name: choice for choice, node in reversed(types.items()) for field in fields(node) if field.name != "name"}
        yield from ((f"{group}.{name}", (f"{group}={choice}", *needs.get(choice, ()))) for name, choice in first.items())


def given(run: Composed, config: DictConfig, override: str) -> Composed:
    """The run with one more override, as compose makes it: only the group of its key is made anew, because composing takes a tenth of a second."""
    (parsed_override,) = parsed([override])
    refuse_no_choice(parsed_override, [])
    key, value = parsed_override.key_or_group, parsed_override.value()
    group, _, field = key.rpartition(".")
    changed = deepcopy(config[group]) if group else DictConfig({}, element_type=str)
    try:
        OmegaConf.update(changed, field, value, merge=True)
        made = OmegaConf.to_object(changed)
    except OmegaConfBaseException as error:
        raise ConfigError(value_message(error.full_key or key, first_line(error), override.partition("=")[2])) from error
    try:
        run = with_nodes(with_sizes(replace(run, **({group: made} if group else {key: made[field]}))))
    except ValueError as error:
        raise ConfigError(str(error)) from error
    refuse_no_hosts(run)
    check_values(run)
    refuse_slurm_values(run)
    refuse_hosts_values(run)
    return run


def refusals(values: tuple[str, ...]) -> Iterator[tuple[str, str, str]]:
    """Each key and value, and the message; empty where the value is accepted."""
    configs = {}
    for key, choice in keys_with_choice():
        if choice not in configs:
            config = compose_config([*DEMO, *choice])
            configs[choice] = typed_run(config), config
        for value in values:
            try:
                given(*configs[choice], f"{key}={value}")
            except RegimenError as error:
                yield key, value, str(error)
            else:
                yield key, value, ""


def is_plain(key: str, value: str, message: str) -> bool:
    """Whether it names the key, or the one that is made of it, in our words alone; its last sentence is an instruction or says what is accepted."""
    raw = any(word in message.replace(value, "") for word in RAW)
    return not raw and message.endswith((".", "'")) and any(named in message for named in (key, "name=" if key == "model.name" else key))


def test_a_list_an_empty_text_and_a_huge_number_are_refused_by_every_key_that_does_not_hold_them() -> None:
    answers = [*refusals(FEW)]
    assert [answer for answer in answers if answer[2] and not is_plain(*answer)] == []
    texts_and_numbers = {key for key, _ in keys_with_choice() if field_type(key).startswith(("str", "float"))}
    assert {value for _, value, message in answers if not message} == {HUGE}
    assert {key for key, _, message in answers if not message} <= texts_and_numbers


@pytest.mark.long
def test_every_key_answers_odd_values_in_plain_words() -> None:
    assert [answer for answer in refusals(MANY) if answer[2] and not is_plain(*answer)] == []


@pytest.mark.parametrize("value", ["1.10", "1e5", "true", "007"])
def test_a_text_is_kept_as_it_was_written(value: str) -> None:
    run = compose([*DEMO, f"model.revision={value}", f"data.name={value}"])
    assert (run.model.revision, run.data.name) == (value, value)


@pytest.mark.parametrize("value", ["2", "-1", "0.5"])
def test_a_number_is_not_true(value: str) -> None:
    with pytest.raises(ConfigError, match=rf"^data\.packing={value} is not possible\. It must be true or false\.$"):
        compose_config([*DEMO, f"data.packing={value}"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.sets=${name}", "data.sets refers to sft-lora-demo. It must be a list of texts."),
        ("model.architecture=${name}", "model.architecture refers to sft-lora-demo. It must be a table."),
        ("training.epochs=${name}", "training.epochs=${name} is not possible, because it stands for sft-lora-demo. It must be a number."),
        ("data.packing=${name}", "data.packing=${name} is not possible, because it stands for sft-lora-demo. It must be true or false."),
        (
            "data.folder=${nothing}",
            "data.folder refers to ${nothing}, which is not a key. Write the value itself, or a whole key such as ${training.seed}.",
        ),
    ],
)
def test_a_reference_that_gives_no_value_for_its_key_is_refused(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        compose([*DEMO, override])
    assert str(refused.value) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("packing: 2\n", "data.packing=2 is not possible. It must be true or false."),
        ("name: 1.10\n", "data.name is a text, and YAML reads what stands there as 1.1. Put it in quotes."),
        ("sets: [a.jsonl, 1.10]\n", "data.sets[1] is a text, and YAML reads what stands there as 1.1. Put it in quotes."),
        ("name: yes\n", "data.name is a text, and YAML reads what stands there as true. Put it in quotes."),
    ],
)
def test_what_a_file_would_change_in_silence_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/mine.yaml").write_text(text)
    with pytest.raises(ConfigError) as refused:
        compose(["model=demo", "data=mine"], [tmp_path])
    assert str(refused.value) == f"In {tmp_path}/data/mine.yaml: {message}"
