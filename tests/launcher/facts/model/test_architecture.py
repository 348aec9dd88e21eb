"""Where a config.json is found: embedded, in a folder, on a hub that answers as the real one does; and every way to miss it."""

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest

from conf.hub import hub_silence, silence_of
from conf.schema import Model
from launcher.errors import ConfigError
from launcher.facts.model import architecture_source, read_architecture

ARCHITECTURE = {"model_type": "llama", "hidden_size": 48}


def model(path: str | None, architecture: dict[str, Any] | None = None, revision: str | None = None) -> Model:
    return Model("m", path, revision, "pretrained", None, architecture, [], 1, None)


def test_an_embedded_architecture_comes_before_the_path() -> None:
    given = model("/nowhere", {"model_type": "llama"})
    assert read_architecture(given) == {"model_type": "llama"}
    assert architecture_source(given) == "model.architecture"


def test_a_local_folder_is_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(ARCHITECTURE))
    assert read_architecture(model(str(tmp_path))) == ARCHITECTURE


def test_neither_path_nor_architecture_is_one_message() -> None:
    with pytest.raises(ConfigError, match=r"model\.path and model\.architecture are both null"):
        read_architecture(model(None))


@pytest.mark.parametrize("path", ["./nowhere", "/nowhere/at/all", "~/nowhere-at-all"])
def test_a_missing_folder_is_one_message(path: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"model.path={path} is not a folder")):
        read_architecture(model(path))


def test_a_folder_without_config_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds no config\.json"):
        read_architecture(model(str(tmp_path)))


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"{'a': 1}", "is not JSON"), (b"\xff\xfe", "is not JSON"), (b"[" * 100_000, "is not JSON"), (b"[1]", "holds a JSON list")],
)
def test_a_config_that_is_no_json_object_is_one_message(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        read_architecture(model(str(tmp_path)))


class Hub(BaseHTTPRequestHandler):
    """Answers as huggingface.co does: errors are told by X-Error-Code (huggingface_hub/utils/_http.py, hf_raise_for_status)."""

    ERRORS = {"gated": (403, "GatedRepo"), "unknown": (401, "RepoNotFound"), "empty": (404, "EntryNotFound"), "broken": (500, "")}  # noqa: RUF012
    BODY = json.dumps(ARCHITECTURE).encode()

    def do_HEAD(self) -> None:
        name, revision = [*self.path.split("/")[2::2], "", ""][:2]
        status, code = self.ERRORS.get(name, (200, ""))
        if revision == "nowhere":
            status, code = 404, "RevisionNotFound"
        self.send_response(status)
        self.send_header("Content-Length", str(len(self.BODY)))
        self.send_header("ETag", '"0123456789abcdef0123456789abcdef01234567"')
        self.send_header("X-Repo-Commit", "89abcdef0123456789abcdef0123456789abcdef")
        if code:
            self.send_header("X-Error-Code", code)
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        self.wfile.write(self.BODY)

    def log_message(self, format: str, *args: object) -> None:
        return


def point_hub_at(monkeypatch: pytest.MonkeyPatch, endpoint: str, cache: Path) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    point_hub_at(monkeypatch, f"http://127.0.0.1:{server.server_port}", tmp_path)
    yield
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.usefixtures("hub")
def test_a_hub_id_is_fetched_and_found_again_without_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert read_architecture(model("owner/fine")) == ARCHITECTURE
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert read_architecture(model("owner/fine")) == ARCHITECTURE


@pytest.mark.usefixtures("hub")
def test_a_hub_that_falls_silent_is_asked_once_for_what_is_cached(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    read_architecture(model("owner/fine"))
    point_hub_at(monkeypatch, "http://127.0.0.1:9", tmp_path)
    assert hub_silence() is not None
    caplog.clear()
    assert read_architecture(model("owner/fine")) == ARCHITECTURE
    assert "Retrying" not in caplog.text


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize("page", ["/", "/owner/broken/resolve/main"])
def test_whatever_a_hub_answers_it_is_there(page: str) -> None:
    assert silence_of(huggingface_hub.constants.ENDPOINT + page) is None


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("owner/gated", "model.path=owner/gated is gated on the hub. Accept its licence there and set HF_TOKEN"),
        ("owner/unknown", "model.path=owner/unknown is not on the hub, or is private. Check the id, set HF_TOKEN"),
        ("owner/empty", "model.path=owner/empty holds no config.json on the hub"),
        ("owner/broken", "model.path=owner/broken: the hub cannot be reached (Server error '500 Internal Server Error'"),
        ("too/many/parts", "model.path=too/many/parts is neither a folder that exists nor a hub id"),
    ],
)
def test_each_answer_of_the_hub_is_one_message(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        read_architecture(model(name))


@pytest.mark.usefixtures("hub")
def test_an_unknown_revision_is_one_message() -> None:
    with pytest.raises(ConfigError, match=r"model\.revision=nowhere is not a revision of owner/fine"):
        read_architecture(model("owner/fine", revision="nowhere"))


def test_a_hub_out_of_reach_is_one_message(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    point_hub_at(monkeypatch, "http://127.0.0.1:1", tmp_path)  # nobody listens on port 1
    with pytest.raises(ConfigError, match=r"owner/fine: the hub cannot be reached .* no config\.json is cached"):
        read_architecture(model("owner/fine"))
