"""The grids of memory cells: no cell twice, predicted alike whether its weights are there or not."""

import json

from benchmarks.memory.cells import architecture_of, overrides, small, tiny, write_samples
from benchmarks.memory.chosen import CHOSEN_ONE_GPU, CHOSEN_TWO_GPUS, write_shapes
from benchmarks.memory.drawn import DRAWN_AGAIN_ONE_GPU, DRAWN_ONE_GPU
from benchmarks.memory.drawn_on_two import DRAWN_AGAIN_TWO_GPUS, DRAWN_TWO_GPUS
from benchmarks.memory.families import SHAPES as FAMILY_SHAPES
from benchmarks.memory.from_files import FROM_FILES_ONE_GPU, FROM_FILES_TWO_GPUS
from benchmarks.memory.stages_on_two import SHARDINGS, STAGES, STAGES_ON_TWO_GPUS
from benchmarks.memory.variants import FIXED_ONE_GPU, VARIANTS_ONE_GPU
from launcher.composition.compose import compose
from launcher.gate.judge import judge_run

CELLS = (
    *CHOSEN_ONE_GPU,
    *CHOSEN_TWO_GPUS,
    *FROM_FILES_ONE_GPU,
    *FROM_FILES_TWO_GPUS,
    *VARIANTS_ONE_GPU,
    *FIXED_ONE_GPU,
    *DRAWN_ONE_GPU,
    *DRAWN_AGAIN_ONE_GPU,
    *DRAWN_TWO_GPUS,
    *DRAWN_AGAIN_TWO_GPUS,
    *STAGES_ON_TWO_GPUS,
)


def test_no_cell_is_there_twice():
    assert len({cell.name for cell in CELLS}) == len(CELLS)
    assert len({(cell.model, cell.micro_batch, cell.length, frozenset(cell.choices), cell.gpus) for cell in CELLS}) == len(CELLS)


def test_a_prediction_does_not_depend_on_whether_the_weights_are_there(tmp_path):
    cell = next(cell for cell in FROM_FILES_ONE_GPU if cell.name == "full_amp-sgd/llama3.2_1b/2x1024")
    shapes, data = write_shapes(tmp_path / "shapes"), write_samples(tmp_path / "data")
    architecture = architecture_of(cell, shapes)
    there = tmp_path / "bases" / cell.model
    there.mkdir(parents=True)
    (there / "config.json").write_text(json.dumps(architecture))
    (there / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")

    def predicted(bases):
        given = [*overrides(cell, data, bases), *tiny(architecture), "data.cutoff=128", "node=h200_141", "node.gpus=1"]
        return judge_run(compose(given, [shapes])).estimate.as_dict()

    assert predicted(tmp_path / "bases") == predicted(tmp_path / "nowhere")


def test_the_drawn_cells_of_every_stage_have_each_sharding_four_times_and_rows_that_are_written(tmp_path):
    names = [cell.name.partition("/")[0].split("-") for cell in STAGES_ON_TWO_GPUS]
    assert all(sum(sharding in parts for parts in names) == 4 for sharding in SHARDINGS)
    assert {parts[0] for parts in names} == set(STAGES)
    data = write_samples(tmp_path)
    assert all((data / cell.rows).is_file() for cell in STAGES_ON_TWO_GPUS)


def test_a_rehearsal_of_a_family_leaves_its_vocabulary_unstated():
    shapes = small({"starcoder2": FAMILY_SHAPES["starcoder2"]})
    assert shapes["starcoder2"].startswith(FAMILY_SHAPES["starcoder2"])
    assert "hidden_size: 64" in shapes["starcoder2"]
    assert "vocab_size" not in shapes["starcoder2"]
