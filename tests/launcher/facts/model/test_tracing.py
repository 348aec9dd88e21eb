"""Tracing by a process of its own: what it answers, what is kept, what it refuses."""

import json
import sys

import pytest

from conf.traces import POWERS, TraceSettings
from launcher.errors import ConfigError
from launcher.facts.model.trace import Trace, Untraceable, bytes_of
from launcher.facts.model.tracing import kept_trace, trace_file

GRANITE = json.dumps(
    {
        **{"model_type": "granite", "vocab_size": 97, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 6},
        **{"num_attention_heads": 4, "num_key_value_heads": 2},
    }
)
SETTINGS = TraceSettings(compute=2, autocast=False, checkpointing=True, attention="sdpa", masked=False, packed=False, adapter=None)


def test_an_architecture_is_traced_once_with_a_word_and_then_read_from_the_cache(tmp_path, capfd, monkeypatch):
    trace = kept_trace(GRANITE, SETTINGS, tmp_path)

    assert isinstance(trace, Trace)
    assert "Tracing a step of granite" in capfd.readouterr().err
    # Checkpointing keeps the inputs of six layers; the last norm its fp32 input, factor and normalised values. cos and sin are one for all samples.
    stream, norm, rotary = 6 * 2 * 64, (4 + 2) * 64 + 4, 2 * 2 * 16
    assert bytes_of(trace.kept, 4, 100) == pytest.approx((stream + norm) * 400 + rotary * 100, rel=0.03)

    kept_trace.cache_clear()
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert kept_trace(GRANITE, SETTINGS, tmp_path) == trace
    assert capfd.readouterr().err == ""


def test_what_cannot_be_traced_is_kept_with_its_reason(tmp_path):
    kept = trace_file(GRANITE, SETTINGS, tmp_path)
    kept.write_text(json.dumps({"refused": "ValueError: no"}))

    assert kept_trace(GRANITE, SETTINGS, tmp_path) == Untraceable("ValueError: no")


def test_a_process_that_fails_is_one_message_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("launcher.facts.model.census.FORCED", (("PYTHONHOME", str(tmp_path)),))

    with pytest.raises(
        ConfigError, match=r"layers of model_type=granite are not described by a table here and must be traced, which failed: .*\. Plan where"
    ):
        kept_trace(GRANITE, SETTINGS, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_settings_and_architectures_have_files_of_their_own(tmp_path):
    other = TraceSettings(compute=2, autocast=False, checkpointing=False, attention="sdpa", masked=False, packed=False, adapter=None)

    names = {trace_file(GRANITE, SETTINGS, tmp_path), trace_file(GRANITE, other, tmp_path), trace_file("{}", SETTINGS, tmp_path)}

    assert len(names) == 3


def test_bytes_are_the_sum_of_all_powers_of_the_batch():
    assert bytes_of((1, 2, 3, 4, 5, 6), 2, 10) == 1 + 2 * 2 + 3 * 10 + 4 * 20 + 5 * 100 + 6 * 200
    assert len(POWERS) == 6
