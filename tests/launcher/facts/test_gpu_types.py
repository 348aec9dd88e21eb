"""Which card a GPU type of Slurm is."""

import pytest

from launcher.errors import ConfigError
from launcher.facts.gpu_types import Card, card_names, card_of, described_card, line_to_add, read_row, table


@pytest.mark.parametrize("node", sorted(set(table().values())))
def test_every_row_of_the_table_names_a_described_card(node: str) -> None:
    assert node in card_names()
    assert described_card(node).memory > 2**30


@pytest.mark.parametrize(
    ("gpu_type", "name"), [("h200", "H200-141GB"), ("nvidia_h100_80gb_hbm3", "H100-80GB"), ("NVIDIA_A100-SXM4-80GB", "A100-80GB")]
)
def test_types_are_known_as_sites_and_as_the_driver_write_them(gpu_type: str, name: str) -> None:
    card = card_of(gpu_type, ())
    assert card is not None
    assert card.name == name


@pytest.mark.parametrize("gpu_type", ["a100", "v100", "mi300x"])
def test_a_name_of_several_cards_or_of_none_is_not_known(gpu_type: str) -> None:
    assert card_of(gpu_type, ()) is None
    assert gpu_type in line_to_add(gpu_type)


def test_a_row_of_the_site_comes_first() -> None:
    assert card_of("h200", ["h200:h100_80"]) == described_card("h100_80")
    assert read_row("b200:B200:180GB:2250") == ("b200", Card("B200", 180 * 10**9, 2250.0))
    assert read_row("b200:B200:180GB") == ("b200", Card("B200", 180 * 10**9, None))


@pytest.mark.parametrize(
    "row", ["", "b200", "b200:nope", "b200:B200:80", "b200:B200:80GB:0", "b200:B200:80GB:x", "b 200:B200:80GB", "b200:B200:0GB:1"]
)
def test_a_row_that_describes_no_card_is_refused_with_an_example(row: str) -> None:
    with pytest.raises(ConfigError, match=r"Write TYPE:CARD, where CARD is one of a100_40.*cluster\.gpu_types=\[b200:NAME:80GB:312\]"):
        read_row(row)
