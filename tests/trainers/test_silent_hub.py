"""A rank whose hub is out of reach asks it once, reads what was downloaded before, and says what is absent."""

import logging
from pathlib import Path

import huggingface_hub.constants
import pytest

from conf.hub import reads_hub
from conf.run_dir import RunDir
from conf.schema import Run
from tests.described import described
from trainers.__main__ import leave_silent_hub
from trainers.model.tokenizer import byte_tokenizer, load_tokenizer
from trainers.ranks.place import Place

RANK_ZERO = Place(rank=0, local_rank=0, world=1, attempt=0, visible="")
COMMIT = "0" * 40


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nobody listens at the endpoint, and the cache holds one tokenizer beside the config.json of its model."""
    nowhere = "http://127.0.0.1:9"
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", nowhere)
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", nowhere + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    held = tmp_path / "hub" / "models--owner--held"
    byte_tokenizer().save_pretrained(held / "snapshots" / COMMIT)
    (held / "snapshots" / COMMIT / "config.json").write_text('{"model_type": "llama"}')
    (held / "refs").mkdir()
    (held / "refs" / "main").write_text(COMMIT)


def run_with(tokenizer: str) -> Run:
    return described("model=demo", "data=demo", "node=cpu", f"model.tokenizer={tokenizer}")


@pytest.mark.usefixtures("no_hub")
def test_a_rank_asks_a_silent_hub_once_and_reads_its_cache(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = RunDir(tmp_path)
    run = run_with("owner/held")
    with caplog.at_level(logging.DEBUG, logger="huggingface_hub"):
        leave_silent_hub(run, run_dir, RANK_ZERO)
        assert load_tokenizer(run).get_vocab() == byte_tokenizer().get_vocab()
    assert "Retrying" not in caplog.text
    said = run_dir.notes.read_text()
    assert said.startswith("The hub cannot be reached (")
    assert said.endswith("), so only what was downloaded before is read.\n")
    assert capsys.readouterr().out == said


@pytest.mark.usefixtures("no_hub")
def test_what_no_cache_has_is_named_at_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = run_with("owner/absent")
    with caplog.at_level(logging.DEBUG, logger="huggingface_hub"):
        leave_silent_hub(run, RunDir(tmp_path), RANK_ZERO)
        with pytest.raises(
            ValueError, match=r"model\.tokenizer=owner/absent: there is no such folder, and no tokenizer of that hub id could be loaded"
        ):
            load_tokenizer(run)
    assert "Retrying" not in caplog.text


@pytest.mark.usefixtures("no_hub")
def test_a_run_that_reads_nothing_of_the_hub_does_not_ask_it(tmp_path: Path) -> None:
    leave_silent_hub(run_with("bytes"), RunDir(tmp_path), RANK_ZERO)
    assert not huggingface_hub.constants.HF_HUB_OFFLINE
    assert not RunDir(tmp_path).notes.exists()


@pytest.mark.parametrize(
    ("given", "asks"),
    [
        (("data.sets=[generated]",), False),
        (("data.sets=[org/name]",), True),
        (("data.evaluation_sets=[org/name]",), True),
        (("stage=ppo", "stage.reward_model=org/judge"), True),
        (("stage=ppo", "stage.reward_model=./judge"), False),
    ],
)
def test_a_run_reads_the_hub_where_a_name_of_its_own_is_no_folder(given: tuple[str, ...], asks: bool) -> None:
    assert reads_hub(described("model=demo", "data=demo", "data.validation_share=0", "node=cpu", *given)) is asks
