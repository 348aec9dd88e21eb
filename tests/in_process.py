"""The command line and the processes of verbs, called in the test's own process: their imports take longer than their work.

One real process of each kind is tested beside them.
"""

import runpy
import subprocess
import sys
from collections.abc import Sequence
from types import SimpleNamespace

import pytest
from command_line import Ended

from launcher.cli import main
from launcher.launch import verb_process


def call_here(capfd: pytest.CaptureFixture[str], *words: str) -> Ended:
    """What the command line says and how it ends, in the working folder of this process."""
    capfd.readouterr()
    return Ended(main([*words]), *capfd.readouterr())


class InThisProcess:
    """What `subprocess.Popen` is for a verb, without another interpreter."""

    def __init__(self, argv: Sequence[str], **_: object) -> None:
        assert list(argv[:2]) == [sys.executable, "-m"]
        self.module, self.arguments = argv[2], list(argv[3:])

    def wait(self) -> int:
        before, sys.argv = sys.argv, [self.module, *self.arguments]
        sys.modules.pop(self.module, None)  # or runpy warns of a module that is there already
        try:
            runpy.run_module(self.module, run_name="__main__")
        except SystemExit as ended:
            return int(ended.code or 0)
        finally:
            sys.argv = before
        raise AssertionError(f"{self.module} did not end with an exit code")


def run_verbs_here(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(verb_process, "subprocess", SimpleNamespace(Popen=InThisProcess, run=subprocess.run))
