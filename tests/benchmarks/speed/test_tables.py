"""The page of the speed measurements is what its script makes of the raw lines."""

import json
from pathlib import Path

from benchmarks.speed.tables import FILE, effects, page

REPOSITORY = Path(__file__).resolve().parents[3]
RESULTS = REPOSITORY / "benchmarks" / "results"


def test_the_page_is_up_to_date() -> None:
    assert (REPOSITORY / "docs" / "measured_speed.md").read_text(encoding="utf-8") == page(RESULTS)


def test_every_run_that_ended_well_is_on_the_page() -> None:
    text = page(RESULTS)
    records = [json.loads(line) for line in (RESULTS / FILE).read_text(encoding="utf-8").splitlines()]
    figures = [f"{record['tokens_per_second']:,.0f}" for record in records if record["exit_code"] == 0]
    assert len(figures) >= 21
    assert [figure for figure in figures if figure not in text] == []


def test_losses_of_a_variant_that_changes_numbers_stand_beside_those_of_the_newest_default() -> None:
    found = [("default", [9.0, 9.0]), ("default", [8.0, 4.0]), ("fp8", [8.0, 4.02]), ("kernels", [1.0, 1.0])]
    records = [{"cell": f"8b-lora/{variant}", "losses": losses} for variant, losses in found]
    assert effects(records) == ["8b-lora, fp8: over 2 steps each loss is within 0.50% of that of the default; the last ones are 4.0200 and 4.0000."]
    assert effects(records[:2]) == []
