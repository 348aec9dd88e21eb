"""The tokenizer of a run."""

from dataclasses import replace
from pathlib import Path

import huggingface_hub.constants
import pytest
from tokenizers import Tokenizer, models
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from conf.schema import Run
from launcher.composition.compose import compose
from tests.described import composed
from trainers.model.tokenizer import byte_tokenizer, load_tokenizer


def demo_run(*overrides: str) -> Run:
    return composed("model=demo", "data=demo", *overrides)


def saved_tokenizer(folder: Path, words: list[str], **special: str | list[str]) -> Path:
    vocabulary = {word: index for index, word in enumerate(words)}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token=words[0]))
    PreTrainedTokenizerFast(tokenizer_object=backend, **special).save_pretrained(folder)
    return folder


def test_the_built_in_tokenizer_has_256_bytes_and_four_special_tokens():
    tokenizer = load_tokenizer(demo_run())
    assert len(tokenizer) == 260  # fits the 264 embeddings of the demo model
    assert (tokenizer.pad_token, tokenizer.eos_token) == ("<|pad|>", "<|im_end|>")
    assert tokenizer.padding_side == "right"


def test_an_architecture_that_states_no_vocabulary_has_that_of_its_family():
    """It ended as a bug, after the model was loaded."""
    run = composed("model=demo", "data=demo")
    run = replace(run, model=replace(run.model, architecture={"model_type": "llama", "num_hidden_layers": 2}))
    assert len(load_tokenizer(run)) == 260  # LlamaConfig has 32,000 embeddings


@pytest.mark.parametrize("text", ["What is 3 + 4?", "  two  spaces \n\ttab\r\n", "é漢🙂", "\x00\x7f"])
def test_bytes_come_back_as_the_same_text_one_token_per_byte(text: str):
    tokenizer = byte_tokenizer()
    ids = tokenizer(text)["input_ids"]
    assert len(ids) == len(text.encode("utf-8"))
    assert tokenizer.decode(ids) == text


def test_a_control_token_is_one_id():
    assert len(byte_tokenizer()("<|im_start|>a<|im_end|>")["input_ids"]) == 3


def test_the_built_in_tokenizer_survives_saving(tmp_path: Path):
    tokenizer = byte_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    chat = [{"role": "user", "content": "é?"}, {"role": "assistant", "content": "7."}]
    assert loaded.apply_chat_template(chat)["input_ids"] == tokenizer.apply_chat_template(chat)["input_ids"]
    assert (loaded.pad_token_id, loaded.eos_token_id) == (tokenizer.pad_token_id, tokenizer.eos_token_id)


def test_a_named_template_becomes_the_tokenizers_own_so_that_it_is_saved_with_the_model():
    tokenizer = load_tokenizer(demo_run("data.template=alpaca"))
    text = tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True)
    assert text.endswith("### Instruction:\nHi\n\n### Response:\n")


def test_the_token_that_ends_an_answer_in_a_named_template_is_the_end_token(tmp_path: Path):
    control = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    special = {"bos_token": control[0], "eos_token": control[1], "extra_special_tokens": control[2:]}
    folder = saved_tokenizer(tmp_path, ["<unk>", *control], unk_token="<unk>", **special)
    assert load_tokenizer(demo_run(f"model.tokenizer={folder}", "data.template=llama3")).eos_token == "<|eot_id|>"
    assert load_tokenizer(demo_run(f"model.tokenizer={folder}", "data.template=alpaca")).eos_token == "<|end_of_text|>"


def test_an_unknown_template_is_refused_with_the_known_ones():
    with pytest.raises(
        ValueError,
        match=r"data.template=nope is not a template. Choose one of: alpaca, baichuan, baichuan2, chatml, deepseek, gemma",
    ):
        load_tokenizer(demo_run("data.template=nope"))


def test_a_template_whose_control_tokens_the_tokenizer_lacks_is_refused():
    with pytest.raises(ValueError, match=r"data.template=llama3 writes .*<\|eot_id\|>"):
        load_tokenizer(demo_run("data.template=llama3"))


def test_a_tokenizer_without_a_chat_template_asks_for_one(tmp_path: Path):
    folder = saved_tokenizer(tmp_path, ["<unk>", "</s>"], unk_token="<unk>", eos_token="</s>")
    with pytest.raises(ValueError, match=r"no chat template. Set data.template to one of alpaca, baichuan"):
        load_tokenizer(demo_run(f"model.tokenizer={folder}"))


def test_plain_text_needs_no_chat_template(tmp_path: Path):
    folder = saved_tokenizer(tmp_path, ["<unk>", "</s>"], unk_token="<unk>", eos_token="</s>")
    assert load_tokenizer(demo_run(f"model.tokenizer={folder}", "stage=pt")).chat_template is None
    with pytest.raises(ValueError, match=r"no chat template"):
        load_tokenizer(demo_run(f"model.tokenizer={folder}", "stage=pt", "evaluation.generate=Hi"))


def test_padding_takes_a_reserved_token_before_the_end_token(tmp_path: Path):
    words = ["<unk>", "</s>", "<|reserved_special_token_0|>", "<|finetune_right_pad_id|>"]
    folder = saved_tokenizer(tmp_path, words, unk_token="<unk>", eos_token="</s>", extra_special_tokens=words[2:])
    tokenizer = load_tokenizer(demo_run(f"model.tokenizer={folder}", "data.template=alpaca"))
    assert tokenizer.pad_token_id == 2


def test_padding_takes_the_end_token_where_nothing_is_reserved(tmp_path: Path):
    folder = saved_tokenizer(tmp_path, ["<unk>", "</s>"], unk_token="<unk>", eos_token="</s>")
    assert load_tokenizer(demo_run(f"model.tokenizer={folder}", "data.template=alpaca")).pad_token == "</s>"


def test_a_tokenizer_larger_than_the_embedding_is_refused():
    run = demo_run()
    run.model.architecture["vocab_size"] = 259
    with pytest.raises(ValueError, match=r"model.tokenizer uses 260 ids, but the model has 259 embeddings"):
        load_tokenizer(run)


def test_the_vocabulary_of_a_model_folder_is_read_from_its_config(tmp_path: Path):
    byte_tokenizer().save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama", "vocab_size": 100}')
    with pytest.raises(ValueError, match=r"uses 260 ids, but the model has 100 embeddings"):
        load_tokenizer(compose(["model=local", f"model.path={tmp_path}", "data=demo"]))


def test_a_missing_folder_is_named():
    with pytest.raises(ValueError, match=r"model.tokenizer=./no/such/folder is neither a folder nor a hub id"):
        load_tokenizer(demo_run("model.tokenizer=./no/such/folder"))


def test_a_folder_without_a_tokenizer_is_named(tmp_path: Path):
    with pytest.raises(ValueError, match=r"the folder holds no readable tokenizer"):
        load_tokenizer(demo_run(f"model.tokenizer={tmp_path}"))


def test_neither_tokenizer_nor_path_is_refused():
    with pytest.raises(ValueError, match=r"model.tokenizer and model.path are both null"):
        load_tokenizer(demo_run("model.tokenizer=null"))


def test_an_unreachable_hub_gives_one_message(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match=r"model.tokenizer=nobody/nothing: there is no such folder, and no tokenizer of that hub id could be loaded"):
        load_tokenizer(demo_run("model.tokenizer=nobody/nothing"))
