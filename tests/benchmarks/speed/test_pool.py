"""The share of a sweep in which each GPU has a living rank, by hand."""

from benchmarks.speed.pool import Driver, recipe, right, summary

GOOD = {"state": "finished", "codes": [0], "steps": 9, "of": 9, "losses": [2.0, 1.0], "model": ["model.safetensors"]}


def test_a_gpu_counts_from_where_a_rank_has_it_to_where_the_rank_exits() -> None:
    points = [
        {**GOOD, "gpus": ["0", "1"], "had": 100.0, "exited": 160.0},
        {**GOOD, "gpus": ["0"], "had": 165.0, "exited": 200.0},
        {**GOOD, "gpus": ["1"], "had": 170.0, "exited": 190.0, "state": "failed"},
    ]
    driver = Driver()
    driver.said = [(99.0, {"0": 0.0, "1": 0.0}), (120.0, {"0": 90.0, "1": 80.0}), (180.0, {"0": 70.0, "1": 60.0})]
    found = summary(points, ["0", "1"], driver)
    assert found["makespan"] == 100.0
    assert found["share_with_a_rank"] == {"0": 0.95, "1": 0.8}
    assert found["driver_mean_percent"] == {"0": 80.0, "1": 70.0}
    assert (found["points"], found["right"], found["shortest_life"]) == (3, 2, 20.0)


def test_a_point_is_right_only_with_all_of_its_steps_all_ranks_and_a_model() -> None:
    assert right(GOOD)
    for wrong in ({"steps": 8}, {"codes": [0, 6]}, {"codes": []}, {"model": []}, {"state": "stopped"}, {"losses": [float("nan")]}):
        assert not right({**GOOD, **wrong})


def test_a_recipe_says_what_the_overrides_say() -> None:
    text = recipe(["model=demo", "regime=full", "model.architecture.hidden_size=64", "training.seed=3"])
    assert text.splitlines() == [
        "# @package _global_",
        "defaults:",
        "  - override /model: demo",
        "  - override /regime: full",
        "  - _self_",
        "model:",
        "  architecture:",
        "    hidden_size: 64",
        "training:",
        "  seed: 3",
    ]
