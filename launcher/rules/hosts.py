"""What the values of cluster=hosts must hold, so that each can be a word of a command on another machine."""

import re
from collections.abc import Sequence

from conf.hosts import EXAMPLE
from conf.schema import Composed, Hosts
from launcher.command import HUB_SECRETS, SECRETS, TRACKER_SECRETS
from launcher.errors import ConfigError, Unsafe
from launcher.rules.slurm_forms import Form

FORMS: dict[str, Form] = {
    "cluster.address": Form(r"[A-Za-z0-9_][\w.-]*|[0-9A-Fa-f:]+(\.[0-9.]+)?(%[\w.-]+)?", "a name or an address", "10.0.0.1"),
    "cluster.python": Form(r"/[\w./+@=-]*", "an absolute path", "/opt/regimen/bin/python"),
    "cluster.export": Form(r"[A-Za-z_]\w*", "the name of a variable", "HF_HOME"),
}
NAME_OF_A_SECRET = re.compile(r"(?i)token|secret|passw|credential|(?:api|access|private)_?key")


def refuse_no_hosts(run: Composed) -> None:
    """Raises ConfigError where no machine is named: the number of nodes follows from them."""
    if isinstance(run.cluster, Hosts) and not run.cluster.hosts:
        raise ConfigError(f"cluster=hosts needs the machines. Name them: {EXAMPLE}.")


def refuse_hosts_values(run: Composed) -> None:
    """Refuse what another machine could not use, before a folder is made. conf/hosts.py has read the list of machines.

    Raises:
        ConfigError: naming the key, the value and an example.
        Unsafe: for a secret that would stand in a command line.
    """
    cluster = run.cluster
    if not isinstance(cluster, Hosts):
        return
    given: dict[str, Sequence[str | None]] = {"cluster.address": [cluster.address], "cluster.python": [cluster.python]}
    given["cluster.export"] = cluster.export
    for key, texts in given.items():
        for text in texts:
            refuse_other_form(key, text)
    for name in cluster.export:
        if name in (*SECRETS, *HUB_SECRETS, *TRACKER_SECRETS) or NAME_OF_A_SECRET.search(name):
            raise Unsafe(f"cluster.export={name} would show a secret to everybody who lists the processes of a machine. Set it on each machine.")
    refuse_unstartable(run)


def refuse_other_form(key: str, text: str | None) -> None:
    form = FORMS[key]
    if text is not None and re.fullmatch(form.pattern, text, re.ASCII) is None:
        raise ConfigError(f"{key}={text} cannot be used on another machine. Write {form.words}, for example {key}={form.example}.")


def refuse_unstartable(run: Composed) -> None:
    """Raises ConfigError where a run would be started again by itself, and a person would have to paste its commands each time."""
    if not isinstance(run.cluster, Hosts) or run.cluster.start == "ssh":
        return
    again = {"backend.max_restarts": bool(run.backend.max_restarts), "training.on_oom=split": run.training.on_oom == "split"}
    again["training.on_nan=rollback"] = run.training.on_nan == "rollback"
    for key in (key for key, given in again.items() if given):
        raise ConfigError(f"{key} starts a run again by itself, and with cluster.start=print only you can. Leave it out, or set cluster.start=ssh.")
