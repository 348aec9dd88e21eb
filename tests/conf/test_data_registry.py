"""Entries of dataset_info.json."""

import json
from pathlib import Path

import pytest

from conf.data_registry import read_registry, registered_source
from trainers.errors import DataError

REGISTRY = Path("data/dataset_info.json")


def test_an_entry_of_a_file_name_is_an_alpaca_file_beside_the_registry():
    source = registered_source(REGISTRY, "mine", {"file_name": "mine.json"})
    assert source.file == Path("data/mine.json")
    assert source.layout is not None
    assert (source.layout.kind, source.layout.columns.query) == ("alpaca", "input")


def test_named_columns_replace_the_usual_ones_and_unnamed_optional_ones_are_not_read():
    entry = {"file_name": "mine.json", "columns": {"prompt": "question", "response": "answer"}}
    layout = registered_source(REGISTRY, "mine", entry).layout
    assert layout is not None
    assert (layout.columns.prompt, layout.columns.response, layout.columns.query, layout.columns.system) == ("question", "answer", None, None)


def test_named_tags_replace_the_usual_ones():
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant", "function_tag": "call"}
    layout = registered_source(REGISTRY, "mine", {"file_name": "a.json", "formatting": "sharegpt", "tags": tags}).layout
    assert layout is not None
    assert (layout.tags.role, layout.tags.user, layout.tags.function, layout.tags.observation) == ("role", "user", "call", "observation")


def test_a_hub_entry_keeps_subset_split_folder_and_number():
    entry = {"hf_hub_url": "org/name", "ms_hub_url": "x/y", "subset": "en", "split": "test", "folder": "v2", "num_samples": 10}
    source = registered_source(REGISTRY, "mine", entry)
    assert (source.hub_id, source.subset, source.split, source.folder, source.samples) == ("org/name", "en", "test", "v2", 10)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            {"ms_hub_url": "x/y"},
            r"entry mine: ms_hub_url: ModelScope is not read here: download the set. Give file_name \(a file or folder in data\)",
        ),
        ({"script_url": "x"}, r"script_url: a loading script is code, and code of a data set is never run"),
        ({}, r"entry mine: no source is named. Give file_name"),
        ({"file_name": "a.json", "columns": {"messages": "m", "images": "images"}}, r"images cannot be used, because regimen trains on text only"),
        ({"file_name": "a.json", "ranking": "yes"}, r"ranking is the text 'yes'. It must be true or false"),
        ({"file_nme": "a.json"}, r"file_nme is not a key. Did you mean file_name\?"),
        ({"file_name": "a.json", "columns": {"promt": "x"}}, r"columns: promt is not a key. Did you mean prompt\?"),
        ({"file_name": "a.json", "tags": {"rol_tag": "x"}}, r"tags: rol_tag is not a key. Did you mean role_tag\?"),
        ({"file_name": "a.json", "formatting": "csv"}, r"formatting=csv is unknown. Use one of: alpaca, sharegpt, openai"),
        ({"file_name": 3}, r"file_name is the number 3. Give it a text, or remove the key"),
        ({"file_name": "a.json", "num_samples": 0}, r"num_samples=0 is not possible. Give a whole number of at least 1"),
        (["a.json"], r"entry mine is a list"),
        ({"file_name": ""}, r"entry mine: file_name is an empty text. Give it a text, or remove the key"),
        ({"hf_hub_url": " "}, r"entry mine: hf_hub_url is an empty text"),
        ({"file_name": "a.json", "columns": {"query": None}}, r"entry mine, columns: query is null. Give it a text, or remove the key"),
        ({"file_name": "a.json", "columns": {"query": ""}}, r"entry mine, columns: query is an empty text"),
        ({"file_name": "a.json", "columns": None}, r"entry mine: columns is null. It must be an object"),
        ({"file_name": "a.json", "columns": {"prompt": "t", "response": "t"}}, r"columns: prompt and response are both 't'"),
        ({"file_name": "a.json", "tags": {"user_tag": "gpt"}}, r"tags: user_tag and assistant_tag are both 'gpt', so it is not known which role"),
        ({"file_name": "a.json", "tags": {"observation_tag": "human"}}, r"tags: user_tag and observation_tag are both 'human'"),
        ({"file_name": "a.json", "tags": {"content_tag": "from"}}, r"tags: role_tag and content_tag are both 'from', so it is not known which key"),
        ({"file_name": "a.json", "tags": {"user_tag": "u"}}, r"tags name the roles of messages, and formatting=alpaca has no messages. Remove tags"),
        ({"file_name": "a.json", "hf_hub_url": "o/n"}, r"file_name=a.json and hf_hub_url=o/n both name the data. Keep the one that is to be read"),
        ({"file_name": "a.json", "subset": "en"}, r"subset can be read of sets of the hub alone"),
        ({"file_name": "a.json", "split": "train[:5%]"}, r"split=train\[:5%\] is a part of a split.*Use num_samples"),
    ],
)
def test_an_entry_that_cannot_be_served_says_why(entry: object, message: str):
    with pytest.raises(DataError, match=message):
        registered_source(REGISTRY, "mine", entry)


def test_a_broken_registry_is_named_with_line_and_column(tmp_path: Path):
    path = tmp_path / "dataset_info.json"
    path.write_text('{"a": {"file_name": "a.json"}\n')
    with pytest.raises(DataError, match=r"dataset_info.json, line 2, column 1: this is not valid JSON"):
        read_registry(path)
    path.write_text("[]")
    with pytest.raises(DataError, match=r"holds an empty list. Make it an object"):
        read_registry(path)


def test_a_registry_that_names_an_entry_or_a_key_twice_is_refused(tmp_path: Path):
    path = tmp_path / "dataset_info.json"
    for twice in ('{"a": {"file_name": "a.json"}, "a": {"file_name": "b.json"}}', '{"a": {"file_name": "a.json", "a": 1, "a": 2}}'):
        path.write_text(twice)
        with pytest.raises(
            DataError, match=r"dataset_info.json: the key 'a' stands twice in one object, and only its last value would be read. Give"
        ):
            read_registry(path)


def test_answers_and_calls_may_have_one_tag():
    entry = {"file_name": "a.json", "formatting": "sharegpt", "tags": {"function_tag": "gpt"}}
    assert registered_source(REGISTRY, "mine", entry).layout is not None


def test_a_folder_without_a_registry_has_no_entries(tmp_path: Path):
    assert read_registry(tmp_path / "dataset_info.json") == {}


def test_every_entry_of_the_real_registry_is_a_source_or_a_clear_error(shared_data: Path):
    path = shared_data / "dataset_info.json"
    entries = json.loads(path.read_text())
    refused = {}
    for name, entry in entries.items():
        try:
            registered_source(path, name, entry)
        except DataError as error:
            refused[name] = str(error)
    assert all(f"entry {name}: " in message for name, message in refused.items())
    assert set(refused) == {name for name, entry in entries.items() if "images" in str(entry) or "videos" in str(entry) or "audios" in str(entry)} | {
        "deepctrl"  # ModelScope alone
    }


@pytest.mark.parametrize(
    ("entry", "holds", "required"),
    [
        ({}, "answers", ("prompt", "response")),
        ({"columns": {"prompt": "text"}}, "text", ("prompt",)),
        ({"columns": {"prompt": "q", "response": "a"}}, "answers", ("prompt", "response")),
        ({"columns": {"prompt": "q", "response": "a", "kto_tag": "label"}}, "labelled", ("prompt", "response", "kto_tag")),
        ({"ranking": True}, "pairs", ("prompt", "chosen", "rejected")),
        ({"columns": {"prompt": "q", "chosen": "c", "rejected": "r"}}, "pairs", ("prompt", "chosen", "rejected")),
        ({"formatting": "sharegpt"}, "answers", ("messages",)),
        ({"formatting": "sharegpt", "ranking": True}, "pairs", ("messages", "chosen", "rejected")),
        ({"formatting": "openai", "columns": {"messages": "m", "kto_tag": "good"}}, "labelled", ("messages", "kto_tag")),
    ],
)
def test_an_entry_tells_what_its_set_holds(entry: dict[str, object], holds: str, required: tuple[str, ...]):
    layout = registered_source(REGISTRY, "mine", {"file_name": "mine.json", **entry}).layout
    assert layout is not None
    assert (layout.holds, layout.required) == (holds, required)
