"""The page of the speed measurements is what its script makes of the raw lines."""

import json
from pathlib import Path

from benchmarks.speed.tables import FILE, effects, fit_section, page, row_of_job, rows_of, spared_section

REPOSITORY = Path(__file__).resolve().parents[3]
RESULTS = REPOSITORY / "benchmarks" / "results"


def test_the_page_is_up_to_date() -> None:
    assert (REPOSITORY / "docs" / "reference" / "measured_speed.md").read_text(encoding="utf-8") == page(RESULTS)


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


def test_a_peer_has_no_prediction() -> None:
    records = [{"cell": "8b-lora/trl", "tokens_per_second": 7000.4, "step_seconds": 1.2, "allocated_gib": 40.0}]
    assert rows_of(records)[-1] == "| 8b-lora: 4 samples a step, full rows of 2048 | TRL | 7,000 | 1200 | 40.00 | – |"


def test_a_job_shows_its_choice_beside_the_fastest() -> None:
    chosen, best = (
        {"job": "a", "name": f"a/{name}", "chosen": name == "4", "tokens_per_second": rate} for name, rate in (("4", 950.0), ("8", 1000.0))
    )
    assert row_of_job([best, chosen]) == "| a | 2 | 4 | 950 | 8 | 1,000 | 0.950 |"
    assert row_of_job([best]) == "| a | 1 | not measured | – | 8 | 1,000 | – |"


def test_what_was_not_measured_has_no_section(tmp_path: Path) -> None:
    assert spared_section(tmp_path / "none.jsonl") == fit_section(tmp_path / "none.jsonl") == []


def test_rounds_of_a_way_stand_side_by_side(tmp_path: Path) -> None:
    lines = [
        {"way": "as it is", "exit_code": 0, "tokens_per_second": rate, "mean_tokens_per_second": rate + 1, "step_seconds": 0.06}
        for rate in (70e3, 80e3)
    ]
    (tmp_path / "spared.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    assert spared_section(tmp_path / "spared.jsonl")[-1].endswith("| as it is | 70,000, 80,000 | 75,000 | 70,001, 80,001 | 60.0 |")
