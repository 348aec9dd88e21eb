"""The machines of cluster=hosts: how a list of them is read."""

import re

import pytest

from conf.hosts import MOST, expanded
from conf.schema import Hosts
from launcher.errors import ConfigError
from tests.described import composed

HOSTS = ("model=demo", "data=demo", "node=cpu", "cluster=hosts")


@pytest.mark.parametrize(
    ("entries", "machines"),
    [
        (["node[01-03,07]"], ("node01", "node02", "node03", "node07")),
        (["a[1-2]b[08-09]"], ("a1b08", "a1b09", "a2b08", "a2b09")),
        (["n1, n2", "me@n[3,5]"], ("n1", "n2", "me@n3", "me@n5")),
        (["10.0.0.7", "::1", "[fe80::2%eth0]", "me@[2001:db8::1]", "gpu-1.example.org"],
         ("10.0.0.7", "::1", "fe80::2%eth0", "me@2001:db8::1", "gpu-1.example.org")),
        (["n[9-11]"], ("n9", "n10", "n11")),
    ],
)  # fmt: skip
def test_lists_are_read_as_slurm_reads_them(entries: list[str], machines: tuple[str, ...]) -> None:
    assert expanded(entries) == machines


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        (["node[3-1]"], "[3-1] in 'node[3-1]' is no list of numbers"),
        (["node[]"], "[] in 'node[]' is no list of numbers"),
        (["node[1-2"], "'node[1-2' names no machine"),
        (["n1", ""], "'' names no machine"),
        (["n1,,n2"], "'' names no machine"),
        (["n[01-02]", "n02"], "names n02 twice"),
        (["n1", "me@n1"], "names n1 twice"),
        (["Node1", "node1"], "names node1 twice"),
        (["::1", "0:0:0:0:0:0:0:1"], "twice"),
        (["n[1-4000][1-4000][1-4000]"], f"names more than {MOST} machines"),
        ([f"n[{'1' * 5000}]"], "is no list of numbers"),
        ([":::::"], "names no machine"),
        (["a..b"], "names no machine"),
        (["256.1.1.1"], "names no machine"),
        (["n" * 300], "names no machine"),
        (["n\u043ede"], "names no machine"),
        ([f"n[1-{MOST + 1}]"], "is no list of numbers"),
        ([f"n[1-{MOST}]", "m"], f"names more than {MOST} machines, the last by m"),
        (["-oProxyCommand=touch x"], "names no machine"),
        (["n1; touch x"], "names no machine"),
        (["$(touch x)"], "names no machine"),
        (["n1\ntouch x"], "names no machine"),
        (["1234"], ""),
    ],
)
def test_what_names_no_machine_is_refused_with_the_text(entries: list[str], said: str) -> None:
    if not said:
        assert expanded(entries) == tuple(entries)  # a name of digits is one
        return
    with pytest.raises(ValueError, match=re.escape(said)):
        expanded(entries)


def test_each_machine_is_a_node() -> None:
    cluster = composed(*HOSTS, 'cluster.hosts=["node[01-03]",gpu9]').cluster
    assert isinstance(cluster, Hosts)
    assert cluster.nodes == 4
    assert composed(*HOSTS, "cluster.hosts=[a,b]", "cluster.nodes=2").cluster.nodes == 2


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("cluster.hosts=[a,b]", "cluster.nodes=3"), "cluster.hosts names 2 machines, and cluster.nodes=3. Leave cluster.nodes out, or set it to 2."),
        (("cluster.hosts=[a,a]",), "names a twice"),
    ],
)
def test_a_list_that_cannot_be_a_run_is_a_message(given: tuple[str, ...], said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        composed(*HOSTS, *given)
