"""What libraries print and nobody can act on is left out by name, and nothing else is."""

import importlib
import logging
import subprocess
import warnings

import pytest

from trainers.ranks.noise import NOISE, Noise, leave_out_noise


@pytest.mark.parametrize("noise", NOISE, ids=lambda noise: noise.logger)
def test_a_named_message_is_left_out_and_others_of_the_same_library_stay(
    noise: Noise, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_out_noise()
    logger = logging.getLogger(noise.logger)
    caplog.set_level(logging.WARNING, noise.logger)  # whatever libraries have set in this process
    monkeypatch.setattr(logger, "disabled", False)
    logger.propagate, parent = True, logging.getLogger(noise.logger.split(".")[0])
    parent.addHandler(caplog.handler)
    try:
        logger.warning("%s and so on", noise.begins)
        logger.warning("Something that a user can act on")
    finally:
        parent.removeHandler(caplog.handler)
    assert {record.getMessage() for record in caplog.records} == {"Something that a user can act on"}


@pytest.mark.parametrize("noise", NOISE, ids=lambda noise: noise.logger)
def test_the_library_still_says_it_there(noise: Noise) -> None:
    """Else the row is of an older version and can be removed."""
    module = importlib.import_module(noise.logger)
    with open(str(module.__file__), encoding="utf-8") as file:
        assert noise.begins in file.read()


@pytest.mark.parametrize(("category", "stays"), [(FutureWarning, False), (DeprecationWarning, False), (UserWarning, True), (RuntimeWarning, True)])
def test_announcements_to_programmers_are_left_out_and_real_warnings_stay(category: type[Warning], stays: bool) -> None:
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        leave_out_noise()
        warnings.warn("said", category, stacklevel=1)
    assert [str(warning.message) for warning in heard] == ["said"] * stays


def test_importing_what_a_verb_needs_says_nothing(python: str, site_environment: dict[str, str]) -> None:
    """peft imports bitsandbytes, which misses an optional kernel on processors with AVX-512."""
    done = subprocess.run([python, "-c", "import trainers.verbs.export"], env=site_environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
