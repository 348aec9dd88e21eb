"""What a rank imports."""

import importlib
import subprocess
import sys

import pytest

from conf.schema import Run
from launcher.composition.compose import compose
from trainers.ranks.libraries import import_after_all, left_out


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ((), ("hqq", "deepspeed")),
        (("regime=qlora", "regime.bits=4"), ("hqq", "deepspeed")),
        (("regime=qlora", "regime.bits=2"), ("deepspeed",)),
        (("sharding=zero2",), ("hqq",)),
        (("stage=grpo",), ()),  # a reward function may import what it likes
    ],
)
def test_packages_are_left_out_that_the_run_does_not_use(overrides: tuple[str, ...], expected: tuple[str, ...]) -> None:
    assert left_out(described(*overrides)) == expected


def test_a_package_that_was_left_out_is_imported_where_a_checkpoint_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that goes on from ZeRO's checkpoint under ddp reads classes of DeepSpeed."""
    monkeypatch.setitem(sys.modules, "colorsys", None)
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("colorsys")
    assert import_after_all("colorsys").rgb_to_hsv(1, 0, 0) == (0.0, 1.0, 1)


def described(*overrides: str) -> Run:
    return compose(["model=llama3.1_8b", "data=demo", *overrides])


CHECK = """
import sys
import trainers.__main__
heavy = ("torch", "transformers", "hqq", "deepspeed", "scipy.optimize", "trl", "torch._inductor.compile_fx")
print([name for name in heavy if sys.modules.get(name)])
from launcher.composition.compose import compose
from trainers.ranks.libraries import only_what_is_needed, without_prefix
with only_what_is_needed(compose(["model=llama3.1_8b", "data=demo", "regime=qlora"])):
    import trainers.run, trainers.stages.sft, trainers.regimes.qlora
print([name for name in heavy if sys.modules.get(name)])
from pathlib import Path
import transformers
from transformers.utils import import_utils
read, folder = import_utils.define_import_structure, Path(transformers.__file__).parent / "models"
print("LlamaConfig" in dir(transformers.models))
before = read.cache_info().misses
told = {needs: names for needs, names in without_prefix(read(folder, prefix="models"), "models").items() if names}
print(told == read(str(folder / "__init__.py")), read.cache_info().misses - before)
from accelerate.utils import is_deepspeed_available
from transformers.utils import is_hqq_available, is_scipy_available
import gc, scipy.optimize
import torch
from trainers.ranks.libraries import when_called
double = when_called(torch.compile)(lambda number: 2 * number, backend="eager")
print(double(torch.tensor(4)).item(), double(torch.tensor(5)).item())
print(bool(is_deepspeed_available()), is_hqq_available(), is_scipy_available(), gc.isenabled())
"""


def test_a_rank_answers_before_libraries_and_loads_those_of_its_run_alone() -> None:
    """In a process of its own, since these modules are in this one already. scipy is there for whoever asks later."""
    done = subprocess.run([sys.executable, "-c", CHECK], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "['torch', 'transformers']", "True", "True 1", "8 10", "False False True True"]
