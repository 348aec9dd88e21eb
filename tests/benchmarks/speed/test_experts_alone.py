"""The times of quantised experts: every size of the buffer once, and never again what the file holds."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks.speed import experts_alone
from benchmarks.speed.experts_alone import BUFFERS, FORMS, TINY, Notes, measure_layers, rows
from trainers.model import experts as experts_module


def test_a_layer_is_timed_once_with_every_buffer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experts_module, "EXPERT_BUFFER", experts_module.EXPERT_BUFFER)  # as it was, after the test
    monkeypatch.setattr(experts_alone, "CALLS", 1)
    file, shapes = tmp_path / "experts.jsonl", {"mixtral": TINY["mixtral"]}

    measure_layers(Notes(file, 600, torch.device("cpu")), shapes, 16)
    first = file.read_text()
    measure_layers(Notes(file, 600, torch.device("cpu")), shapes, 16)

    assert file.read_text() == first
    lines = [json.loads(line) for line in first.splitlines()]
    assert len({line["what"] for line in lines}) == len(lines) == 1 + len(FORMS) * len(BUFFERS)
    assert all(line["seconds"] > 0 for line in lines)
    assert len(list(rows(file))) == len(lines)


def test_nothing_is_timed_after_the_limit(tmp_path: Path) -> None:
    measure_layers(Notes(tmp_path / "experts.jsonl", 0, torch.device("cpu")), {"mixtral": TINY["mixtral"]}, 16)
    assert not (tmp_path / "experts.jsonl").exists()
