"""Counting by a process of its own: what it answers, what is kept, what it refuses."""

import dataclasses
import json
import re

import pytest

from launcher.errors import ConfigError
from launcher.facts.model import ModuleKind, model_facts
from launcher.facts.model.census import counted_facts

STABLELM = {
    "model_type": "stablelm",
    "vocab_size": 97,
    "hidden_size": 48,
    "intermediate_size": 112,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "tie_word_embeddings": False,
}
# queries and output 48 x 48, keys and values 48 x 16, three matrices of 48 x 112, two norms with gain and bias
LAYER = 2 * 48 * 48 + 2 * 48 * 16 + 3 * 48 * 112 + 2 * 2 * 48


def test_an_unlisted_architecture_is_counted_exactly_once_and_then_read_from_the_cache(tmp_path, capfd):
    facts = counted_facts(STABLELM, "here", tmp_path)
    assert "Counting the modules of stablelm" in capfd.readouterr().err

    assert facts.parameters == 2 * 97 * 48 + 3 * LAYER + 2 * 48
    assert (facts.family, facts.layers, facts.heads, facts.kv_heads, facts.head_dim) == ("stablelm", 3, 6, 2, 8)
    assert (facts.gated_mlp, facts.layer_norm, facts.norms_per_layer, facts.tied) == (True, True, 2, False)

    (kept,) = tmp_path.iterdir()
    kept.write_text(kept.read_text().replace('"layers": 3', '"layers": 7'))
    assert counted_facts(STABLELM, "here", tmp_path).layers == 7
    assert capfd.readouterr().err == ""


def test_an_architecture_that_transformers_does_not_know_is_one_message(tmp_path):
    message = "here: model_type=nope has no table here, and transformers cannot build it: transformers"

    with pytest.raises(ConfigError, match=re.escape(message)):
        counted_facts({"model_type": "nope"}, "here", tmp_path)
    assert not any(tmp_path.iterdir())


def test_a_listed_architecture_is_counted_by_its_table_without_a_process(monkeypatch):
    monkeypatch.setattr("subprocess.run", lambda *_, **__: pytest.fail("a process was started"))
    sizes = {**STABLELM, "model_type": "llama"}

    assert model_facts(sizes, "here").parameters == 2 * 97 * 48 + 3 * (LAYER - 2 * 48) + 48


def test_a_torn_file_in_the_cache_is_counted_again(tmp_path):
    facts = dataclasses.asdict(model_facts({**STABLELM, "model_type": "llama"}, "here"))
    whole = json.dumps({**facts, "modules": [dataclasses.asdict(ModuleKind("lm_head", "head", 48, 97, 0, ()))]})
    from launcher.facts.model.census import parsed

    (tmp_path / "whole.json").write_text(whole)
    (tmp_path / "torn.json").write_text(whole[:-5])

    assert parsed(tmp_path / "whole.json") is not None
    assert parsed(tmp_path / "torn.json") is None


def test_what_is_counted_has_the_traits_that_are_known_of_its_family(tmp_path):
    sizes = {**dataclasses.asdict(model_facts({**STABLELM, "model_type": "llama"}, "here")), "modules": []}
    from launcher.facts.model.census import parsed

    for family, fused in (("olmo2", True), ("stablelm", False)):
        (tmp_path / "counted.json").write_text(json.dumps({**sizes, "family": family}))
        assert parsed(tmp_path / "counted.json").traits.fused_loss is fused


def test_a_count_that_does_not_end_is_one_message(tmp_path, monkeypatch):
    monkeypatch.setattr("launcher.facts.model.census.SECONDS", 0.01)

    with pytest.raises(ConfigError, match=r"here: counting model_type=stablelm took more than 0.01 s and was ended"):
        counted_facts(STABLELM, "here", tmp_path)
    assert not any(tmp_path.iterdir())
