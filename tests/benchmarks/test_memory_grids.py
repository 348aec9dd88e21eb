"""The grids of memory cells: no cell twice, predicted alike whether its weights are there or not."""

import json

from memory_cells import architecture_of, overrides, tiny, write_samples
from memory_fifth import FIFTH_ONE_GPU, SIXTH_ONE_GPU
from memory_grid import ONE_GPU, TWO_GPUS, write_shapes
from memory_second import SECOND_ONE_GPU, SECOND_TWO_GPUS
from memory_seventh import EIGHTH_TWO_GPUS, SEVENTH_TWO_GPUS
from memory_third import FOURTH_ONE_GPU, THIRD_ONE_GPU

from launcher.compose import compose
from launcher.plan import judge_run

ONE = (*ONE_GPU, *SECOND_ONE_GPU, *THIRD_ONE_GPU, *FOURTH_ONE_GPU, *FIFTH_ONE_GPU, *SIXTH_ONE_GPU)
CELLS = (*ONE, *TWO_GPUS, *SECOND_TWO_GPUS, *SEVENTH_TWO_GPUS, *EIGHTH_TWO_GPUS)


def test_no_cell_is_there_twice():
    assert len({cell.name for cell in CELLS}) == len(CELLS)
    assert len({(cell.model, cell.micro_batch, cell.length, frozenset(cell.choices), cell.gpus) for cell in CELLS}) == len(CELLS)


def test_a_prediction_does_not_depend_on_whether_the_weights_are_there(tmp_path):
    cell = next(cell for cell in SECOND_ONE_GPU if cell.name == "full_amp-sgd/llama3.2_1b/2x1024")
    shapes, data = write_shapes(tmp_path / "shapes"), write_samples(tmp_path / "data")
    architecture = architecture_of(cell, shapes)
    there = tmp_path / "bases" / cell.model
    there.mkdir(parents=True)
    (there / "config.json").write_text(json.dumps(architecture))

    def predicted(bases):
        given = [*overrides(cell, data, bases), *tiny(architecture), "data.cutoff=128", "node=h200_141", "node.gpus=1"]
        return judge_run(compose(given, [shapes])).estimate.as_dict()

    assert predicted(tmp_path / "bases") == predicted(tmp_path / "nowhere")
