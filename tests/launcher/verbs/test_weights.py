"""RUN, RUN@step-N and last: which weights they mean, and one message for each way in which there are none."""

import json
from pathlib import Path

import pytest

from conf import journal
from conf.run_dir import RunDir, save_run
from launcher.errors import ConfigError
from launcher.verbs.weights import find_trained, find_usable
from tests.described import described


def run_folder(root: Path, *overrides: str, steps: tuple[int, ...] = (), final: bool = True, adapter: bool = False) -> RunDir:
    run_dir = RunDir(root / "outputs" / "tiny" / "2026-01-01")
    run_dir.path.mkdir(parents=True)
    save_run(described("model=demo", "data=demo", "node=cpu", *overrides), run_dir)
    for folder in [*([run_dir.model] if final else []), *map(run_dir.checkpoint, steps)]:
        folder.mkdir(parents=True)
        name = "adapter_config.json" if adapter else "config.json"
        (folder / name).write_text(json.dumps({"architectures": ["LlamaForCausalLM"], "task_type": "CAUSAL_LM"}))
    return run_dir


def test_a_run_folder_and_last_mean_the_final_model(tmp_path: Path) -> None:
    run_dir = run_folder(tmp_path)
    for name in (str(run_dir.path), "last"):
        found = find_trained(name, tmp_path / "outputs")
        assert (found.weights, found.step, found.label, found.is_adapter) == (run_dir.model, None, "final", False)


def test_a_step_means_its_checkpoint_also_where_the_folder_has_an_at_sign(tmp_path: Path) -> None:
    run_dir = run_folder(tmp_path / "mail@step-3", steps=(10,))
    found = find_trained(f"{run_dir.path}@step-10", tmp_path)
    assert (found.weights, found.label) == (run_dir.checkpoint(10), "step-10")
    assert find_trained("last@step-10", tmp_path / "mail@step-3" / "outputs").weights == run_dir.checkpoint(10)


def test_what_is_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere is not a run folder"):
        find_trained("nowhere", tmp_path)
    with pytest.raises(ConfigError, match="There is no run under"):
        find_trained("last", tmp_path)


def test_a_step_that_was_not_committed_is_named_with_those_that_were(tmp_path: Path) -> None:
    run_dir = run_folder(tmp_path, steps=(20, 100))
    (run_dir.checkpoints / ".tmp-30").mkdir()
    with pytest.raises(ConfigError, match=r"step 30 is not a committed checkpoint\. Committed checkpoints: step-20, step-100\."):
        find_trained(f"{run_dir.path}@step-30", tmp_path)


def test_an_unfinished_run_offers_its_checkpoints(tmp_path: Path) -> None:
    run_dir = run_folder(tmp_path, steps=(20,), final=False)
    with pytest.raises(ConfigError, match=r"no final model: the run is not finished\. Name one of .*2026-01-01@step-20\."):
        find_trained(str(run_dir.path), tmp_path)
    journal.record(run_dir, journal.Ended(81, "NaN"))
    with pytest.raises(ConfigError, match=r"the run is failed"):
        find_trained(str(run_dir.path), tmp_path)


def test_a_run_without_any_weights_says_how_to_finish_it(tmp_path: Path) -> None:
    run_dir = run_folder(tmp_path, final=False)
    with pytest.raises(ConfigError, match=r"no committed checkpoint either\. Finish it with: regimen train resume="):
        find_trained(str(run_dir.path), tmp_path)


def test_an_adapter_without_its_base_is_not_usable(tmp_path: Path) -> None:
    run_dir = run_folder(tmp_path, "regime=lora", adapter=True)
    with pytest.raises(ConfigError, match=r"base is gone .*the random weights .*--adapter` alone needs none"):
        find_usable(str(run_dir.path), tmp_path)
    run_dir.base.mkdir()
    assert find_usable(str(run_dir.path), tmp_path).is_adapter


def test_a_local_base_that_is_gone_is_named_and_one_on_the_hub_is_not_looked_for(tmp_path: Path) -> None:
    gone = run_folder(tmp_path / "one", "regime=lora", "model.init=pretrained", "model.path=/gone/base", adapter=True)
    with pytest.raises(ConfigError, match=r"/gone/base is gone \(model\.path\)"):
        find_usable(str(gone.path), tmp_path)
    hub = run_folder(tmp_path / "two", "regime=lora", "model.init=pretrained", "model.path=owner/base", adapter=True)
    assert find_usable(str(hub.path), tmp_path).is_adapter


def test_the_base_of_a_run_needs_no_finished_run(tmp_path: Path) -> None:
    run_dir = run_folder(tmp_path, "regime=full", final=False)
    found = find_usable(str(run_dir.path), tmp_path, base=True)  # full, from the seed
    assert (found.label, found.as_request.base, found.run_dir.path) == ("base", True, run_dir.path)
    with pytest.raises(ConfigError, match=r"names a checkpoint, and --base asks the model before training"):
        find_usable(f"{run_dir.path}@step-3", tmp_path, base=True)


def test_a_base_that_is_gone_cannot_be_asked(tmp_path: Path) -> None:
    lora = run_folder(tmp_path / "one", "regime=lora", final=False)
    with pytest.raises(ConfigError, match=r"one/outputs/.*/base is gone .* so the base of .* cannot be asked\. Put it back there\."):
        find_usable(str(lora.path), tmp_path, base=True)
    lora.base.mkdir()
    assert find_usable(str(lora.path), tmp_path, base=True).label == "base"
    files = run_folder(tmp_path / "two", "regime=full", "model.init=pretrained", "model.path=/gone/base")
    with pytest.raises(ConfigError, match=r"/gone/base is gone \(model\.path\)"):
        find_usable(str(files.path), tmp_path, base=True)


def test_a_model_folder_is_used_as_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "a model, with=odd 'signs'"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({**described("model=demo", "data=demo", "node=cpu").model.architecture, "architectures": ["X"]}))
    found = find_usable(str(folder), None)
    assert (found.weights, found.recorded, found.is_adapter, found.run.model.path) == (folder, False, False, str(folder))
    with pytest.raises(ConfigError, match=r"--base asks the base of a run"):
        find_usable(str(folder), None, base=True)
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"holds an adapter, which says too little of its base\. Name its run folder"):
        find_usable(str(folder), None)
