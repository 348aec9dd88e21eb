"""The lines on what a run answered before and after its training."""

import json
from pathlib import Path

from conf.run_dir import RunDir
from launcher.verbs.generated import generated_lines


def test_right_answers_are_counted_and_one_is_shown(tmp_path: Path) -> None:
    def judged(when: str, right: int, answer: str) -> dict[str, object]:
        return {"when": when, "asked": 50, "right": right, "answers": [{"prompt": "Ada, 3 + 4?", "answer": answer, "reference": "7"}]}

    RunDir(tmp_path).samples.write_text(json.dumps([judged("before", 0, "x" * 100), judged("after", 49, "7")]))
    assert generated_lines(RunDir(tmp_path)) == [
        "right answers to held-out questions: 0 of 50 before training, 49 of 50 after training",
        "  the first one: 'Ada, 3 + 4?'",
        f"  answered before training: '{'x' * 60}...'",
        "  answered after training: '7'",
    ]


def test_a_prompt_of_the_users_is_shown_with_both_answers(tmp_path: Path) -> None:
    assert generated_lines(RunDir(tmp_path)) == []
    RunDir(tmp_path).samples.write_text(json.dumps([{"when": when, "prompt": "Q", "answer": when[0]} for when in ("before", "after")]))
    assert generated_lines(RunDir(tmp_path)) == ["asked before training: 'Q'\n  answered: 'b'", "asked after training: 'Q'\n  answered: 'a'"]
