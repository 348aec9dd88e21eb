"""The published cells, the lines between them, and which row judges which run."""

import pytest

from conf.rows import MissingRow
from conf.schema import Qlora
from launcher.composition.compose import compose
from launcher.errors import ConfigError
from launcher.facts.model import architecture_source, model_facts, read_architecture
from launcher.gate.hardware_table import FULL, FULL_AMP, GB, LORA, Row, published_need, row_of, row_words
from tests.described import described

COUNTS = {
    "llama2_7b": 6_738_415_616,
    "llama2_13b": 13_015_864_320,
    "qwen2.5_32b": 32_763_876_352,
    "llama2_70b": 68_976_648_192,
    "qwen1.5_110b": 111_209_914_368,
    "mixtral_8x7b": 46_702_792_704,
    "mixtral_8x22b": 140_620_634_112,
}
FREEZE = Row("freeze", "16")
QLORA_8, QLORA_4, QLORA_2 = Row("qlora", "8"), Row("qlora", "4"), Row("qlora", "2")
# In the order of COUNTS; typed from the published table, not read from the file under test.
CELLS = {
    FULL_AMP: (120, 240, 600, 1200, 2000, 900, 2400),
    FULL: (60, 120, 300, 600, 900, 400, 1200),
    FREEZE: (20, 40, 80, 200, 360, 160, 400),
    LORA: (16, 32, 64, 160, 240, 120, 320),
    QLORA_8: (10, 20, 40, 80, 140, 60, 160),
    QLORA_4: (6, 12, 24, 48, 72, 30, 96),
    QLORA_2: (4, 8, 16, 24, 48, 18, 48),
}
ALL_CELLS = [(row, preset, gigabytes) for row, cells in CELLS.items() for preset, gigabytes in zip(COUNTS, cells, strict=True)]


@pytest.mark.parametrize(("row", "preset", "gigabytes"), ALL_CELLS)
def test_each_cell_is_exact_at_the_count_of_its_column(row: Row, preset: str, gigabytes: int) -> None:
    assert published_need(row, COUNTS[preset], mixture=preset.startswith("mixtral")) == gigabytes * GB


def test_there_are_49_cells() -> None:
    assert len(ALL_CELLS) == 49


@pytest.mark.parametrize("preset", COUNTS)
def test_a_column_stands_at_the_count_of_its_preset(preset: str) -> None:
    model = compose([f"model={preset}", "data=demo"]).model
    assert model_facts(read_architecture(model), architecture_source(model)).parameters == COUNTS[preset]


@pytest.mark.parametrize("row", CELLS)
def test_a_mixture_of_the_size_of_a_dense_column_needs_what_that_column_says(row: Row) -> None:
    for preset, gigabytes in list(zip(COUNTS, CELLS[row], strict=True))[:5]:
        assert published_need(row, COUNTS[preset], mixture=True) == gigabytes * GB


# (row, parameters, mixture, GB by hand to six digits)
BETWEEN = [
    # 0.5B, below the first column: 494,032,768 / 6,738,415,616 = 0.0733159 of its cell
    (FULL_AMP, 494_032_768, False, 8.79791),  # x 120
    (LORA, 494_032_768, False, 1.17305),  # x 16
    (QLORA_4, 494_032_768, False, 0.439895),  # x 6
    # Qwen2.5-7B: (7,615,616,512 - 6,738,415,616) / (13,015,864,320 - 6,738,415,616) = 0.139739 of the way from 7B to 13B
    (FULL_AMP, 7_615_616_512, False, 136.769),  # 120 + 0.139739 x 120
    (FREEZE, 7_615_616_512, False, 22.7948),  # 20 + 0.139739 x 20
    (QLORA_8, 7_615_616_512, False, 11.3974),  # 10 + 0.139739 x 10
    # dense 40B: (40 - 32.763876352) / (68.976648192 - 32.763876352) = 0.199822 of the way from 30B to 70B
    (FULL_AMP, 40_000_000_000, False, 719.893),  # 600 + 0.199822 x 600
    (FULL, 40_000_000_000, False, 359.947),  # 300 + 0.199822 x 300
    (LORA, 40_000_000_000, False, 83.1829),  # 64 + 0.199822 x 96
    (QLORA_2, 40_000_000_000, False, 17.5986),  # 16 + 0.199822 x 8
    # mixture of 40B: (40 - 32.763876352) / (46.702792704 - 32.763876352) = 0.519131 of the way from 30B to 8x7B
    (FULL, 40_000_000_000, True, 351.913),  # 300 + 0.519131 x 100
    (QLORA_2, 40_000_000_000, True, 17.0383),  # 16 + 0.519131 x 2
    # a dense model as large as Mixtral-8x7B: (46.702792704 - 32.763876352) / 36.21277184 = 0.384917 of the way from 30B to 70B
    (QLORA_4, 46_702_792_704, False, 33.2380),  # 24 + 0.384917 x 24
    # 200B, above the last column: dense 200 / 111.209914368 = 1.798401, mixture 200 / 140.620634112 = 1.422266 of its cell
    (FULL_AMP, 200_000_000_000, False, 3596.80),  # x 2000
    (QLORA_4, 200_000_000_000, False, 129.485),  # x 72
    (FULL_AMP, 200_000_000_000, True, 3413.44),  # x 2400
    (LORA, 200_000_000_000, True, 455.125),  # x 320
]


@pytest.mark.parametrize(("row", "parameters", "mixture", "gigabytes"), BETWEEN)
def test_between_and_beyond_columns_the_need_lies_on_straight_lines(row: Row, parameters: int, mixture: bool, gigabytes: float) -> None:
    assert published_need(row, parameters, mixture) / GB == pytest.approx(gigabytes, rel=1e-5)


def test_the_need_is_rounded_up_to_a_byte() -> None:
    # 6 GB / 6,738,415,616 = 0.8904 bytes for one parameter
    assert published_need(QLORA_4, 1, mixture=False) == 1


@pytest.mark.parametrize(
    ("overrides", "row"),
    [
        (["regime=full"], FULL_AMP),
        (["regime=full", "training.precision=fp16_amp"], FULL_AMP),
        (["regime=full", "training.precision=fp32"], FULL_AMP),
        (["regime=full", "training.precision=bf16"], FULL),
        (["regime=freeze"], FREEZE),
        (["regime=lora"], LORA),
        (["regime=lora", "training.precision=fp32"], LORA),
        (["regime=qlora", "regime.bits=8"], QLORA_8),
        (["regime=qlora"], QLORA_4),
        (["regime=qlora", "regime.bits=2"], QLORA_2),
        (["regime=qlora", "regime.dequantised=true"], LORA),
        (["regime=full", "training.precision=bf16", "optim=galore"], LORA),
        (["regime=full", "training.precision=bf16", "optim=apollo"], LORA),
        (["regime=full", "training.precision=bf16", "optim=badam"], LORA),
        (["regime=freeze", "optim=galore"], FREEZE),
    ],
)
def test_row_of_a_run(overrides: list[str], row: Row) -> None:
    assert row_of(compose(["model=llama2_7b", "data=demo", *overrides])) == row


def test_qlora_bits_without_a_row_are_refused() -> None:
    run = compose(["model=llama2_7b", "data=demo", "regime=qlora"])
    assert isinstance(run.regime, Qlora)
    run.regime.bits = 3
    with pytest.raises(ConfigError, match=r"regime\.bits=3 has no row .* one of 8, 4, 2\."):
        row_of(run)


def test_a_regime_without_a_row_is_refused() -> None:
    run = compose(["model=llama2_7b", "data=demo", "regime=full"])
    run.regime.name = "prefix"
    with pytest.raises(MissingRow, match=r"regime=prefix has no row"):
        row_of(run)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("regime=lora",), "LoRA, 16 bit"),  # was: lora_galore_badam, 16 bit
        (("regime=qlora", "regime.bits=4"), "QLoRA, 4 bit"),
        (("regime=qlora", "regime.dequantised=true"), "LoRA, 16 bit, for the dequantised base"),
        (("regime=freeze",), "freeze, 16 bit"),
        (("regime=full",), "full training in mixed precision"),
        (("regime=full", "training.precision=fp32"), "full training in fp32, by the row of mixed precision"),
        (("regime=full", "training.precision=bf16"), "full training, 16 bit"),
        (("regime=full", "optim=galore"), "galore, 16 bit"),
        (("regime=full", "optim=badam"), "badam, 16 bit"),
    ],
)
def test_a_row_is_said_in_words(overrides: tuple[str, ...], said: str) -> None:
    assert row_words(described("model=llama3.1_8b", "data=demo", "node=h100_80", *overrides)) == said
