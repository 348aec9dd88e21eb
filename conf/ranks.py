"""How many processes a run has."""

from conf.schema import Run


def ranks(run: Run) -> int:
    """Over all nodes."""
    return run.cluster.nodes * run.cluster.ranks_per_node
