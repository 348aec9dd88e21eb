"""Which texts count as secrets, and what is shown instead. The tokens are made up, and put together here so that no scanner finds them."""

import pytest

from conf import secrets
from conf.secrets import hide, masked, masked_in, shape_of_secret

LONG = "Zq3" * 12
SECRETS = {
    "hugging face": "hf" + f"_{LONG}",
    "openai": "sk" + f"-proj-{LONG}",
    "anthropic": "sk" + f"-ant-api03-{LONG}",
    "github": "gh" + f"p_{LONG}",
    "github fine-grained": "github" + f"_pat_{LONG}",
    "gitlab": "glpat" + f"-{LONG[:20]}",
    "aws": "AKIA" + "QWERTYUIOPASDFGH",
    "google": "AIza" + LONG[:35],
    "slack": "xoxb" + "-1234567890-abcdef",
    "stripe": "sk" + f"_live_{LONG[:24]}",
    "wandb": "0123456789abcdef" * 2 + "01234567",
    "wandb, new": "wandb" + f"_v1_{LONG}",
    "jwt": "eyJ" + f"hbGciOiJIUzI1.eyJ{LONG}.{LONG}",
    "npm": "npm" + f"_{LONG}",
}
URLS = {
    "basic auth": "https://someone:pass-of-someone@host.example/data.jsonl",
    "user without name": "https://:pass-of-someone@host.example",
    "database": "postgresql://user:pa55word@db:5432/name",
    "token in a query": "https://host.example/data?split=train&token=abcdefgh12345678",
    "signature in a query": "https://bucket.example/x?X-Amz-Signature=0a1b2c3d4e5f",
}


@pytest.fixture(autouse=True)
def nothing_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "HIDDEN", {})


@pytest.mark.parametrize("line", ["tracking.project={}", "tracking:\n  project: {}\n", "data.sets=[a, {}]", "data:\n  sets:\n  - {}\n"])
@pytest.mark.parametrize("secret", [*SECRETS.values(), *URLS.values()], ids=[*SECRETS, *URLS])
def test_a_secret_in_a_configuration_is_recognised(secret: str, line: str) -> None:
    assert shape_of_secret(line.format(secret))


@pytest.mark.parametrize(
    "line",
    [
        "model.revision=" + SECRETS["wandb"],
        "model:\n  revision: " + SECRETS["wandb"],
        "model.path=/cache/models--a--b/snapshots/" + SECRETS["wandb"],
        "data.sets=[org/name@" + SECRETS["wandb"] + "]",
        "data.sets=[https://host.example:8080/a@b.jsonl]",
        "model.path=Qwen/Qwen2.5-0.5B",
        "stage.rewards=[package.module:function]",
        "evaluation.generate=What is a task-oriented authorization system for risk-taking?",
        "model.path=git@host.example:org/name",
    ],
)
def test_what_only_looks_alike_is_none(line: str) -> None:
    assert shape_of_secret(line) == ""


@pytest.mark.parametrize("secret", [secret for name, secret in SECRETS.items() if name != "wandb"])
def test_a_token_in_a_text_is_masked(secret: str) -> None:
    assert masked(f"401 for {secret}, sorry") == "401 for ***, sorry"


@pytest.mark.parametrize("url", URLS.values(), ids=URLS)
def test_the_secret_part_of_a_url_is_masked(url: str) -> None:
    shown = masked(f"cannot read {url} now")
    assert "***" in shown
    assert not any(part in shown for part in ("pass-of-someone", "pa55word", "abcdefgh12345678", "0a1b2c3d4e5f"))
    assert "example" in shown or "db:5432/name" in shown


def test_a_key_of_wandb_is_masked_behind_its_name_and_a_commit_is_not() -> None:
    key = SECRETS["wandb"]
    assert masked(f"WANDB_API_KEY={key}") == "WANDB_API_KEY=***"
    assert masked(f"commit {key}") == f"commit {key}"
    assert masked(f"Authorization: Basic {LONG}") == "***"


def test_a_value_of_the_environment_is_shown_as_its_variable() -> None:
    hide("value-of-it", "${oc.env:IT}")
    hide("short", "${oc.env:SHORT}")
    assert masked_in({"value-of-it": ["a value-of-it b", 3, None]}) == {"value-of-it": ["a ${oc.env:IT} b", 3, None]}
    assert masked("short") == "short"
