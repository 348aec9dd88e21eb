"""The disk that the gate counts, against the folders of finished runs."""

from collections.abc import Callable
from pathlib import Path

import pytest

from conf.run_dir import RunDir, load_run
from launcher.facts.model import model_facts
from launcher.memory.estimate import estimate

HEADERS = 8192  # bytes of the header of a safetensors file, which has a line for each tensor


def weights_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


@pytest.mark.parametrize("regime", ["full", "lora", "qlora4", "pissa"])
def test_what_a_run_leaves_is_counted_and_its_random_base_too(finished: Callable[[str, str], RunDir], regime: str) -> None:
    run_dir = finished("sft", regime)
    run = load_run(run_dir)
    predicted = {term.name: term.bytes for term in estimate(run, model_facts(run.model.architecture, "test")).disk_terms}
    left = {"base": run_dir.base, "adapter before training": run_dir.initial_adapter}
    assert set(left) & set(predicted) == {name for name, folder in left.items() if folder.is_dir()}
    for name in set(left) & set(predicted):
        assert 0 <= weights_in(left[name]) - predicted[name] <= HEADERS
    if regime != "pissa":  # it is saved as the difference to its beginning, of twice the rank
        assert 0 <= weights_in(run_dir.model) - predicted["final model"] <= HEADERS
