"""How fast the processors of this machine run Python, by which the time of steps that wait for the host is predicted (launcher/timing/rates.py).

On a virtual machine it depends on what its neighbours do: on hosts with an H200 one turn took 35 ns in some seconds and 58 ns in others.
"""

import statistics
import time

TURNS, LOOKS, PAUSE = 10_000, 20, 0.02  # turns of one look, looks, and seconds between them


def python_turn() -> float:
    """Nanoseconds of one turn of a counting loop: the median over half a second."""
    return statistics.median(look(PAUSE) for _ in range(LOOKS))


def look(pause: float = 0.0) -> float:
    time.sleep(pause)
    total, began = 0, time.perf_counter_ns()
    for number in range(TURNS):
        total += number
    return (time.perf_counter_ns() - began) / TURNS
