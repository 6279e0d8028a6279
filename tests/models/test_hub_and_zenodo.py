"""Models of the hub and of Zenodo: a server on this machine in their place, honest or not."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import huggingface_hub
import numpy as np
import pytest
from huggingface_hub import constants
from tissue import GENES, PATCHES, make_section

from sthisto import models
from sthisto.models import Color, zenodo

COMMIT = "a" * 40


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    model = Color(GENES, patch=PATCHES)
    model.fit([make_section()])
    folder = tmp_path_factory.mktemp("saved") / "model"
    model.save(folder)
    return folder


class Server(ThreadingHTTPServer):
    """Serves the files of a folder as a page of the hub and as a record of Zenodo."""

    def __init__(self, folder) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {file.name: file.read_bytes() for file in folder.iterdir()}
        self.checksums, self.sizes, self.hosts, self.asked = {}, {}, {}, []
        self.url = f"http://127.0.0.1:{self.server_port}"

    def entry(self, name: str) -> dict:
        digest = self.checksums.get(name) or hashlib.md5(self.files[name]).hexdigest()
        size = self.sizes.get(name, len(self.files[name]))
        link = f"{self.hosts.get(name, self.url)}/api/records/12/files/{name}/content"
        return {"key": name, "size": size, "checksum": f"md5:{digest}", "links": {"self": link}}


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET(with_body=False)

    def do_GET(self, with_body=True):
        server, parts = self.server, self.path.split("?")[0].strip("/").split("/")
        server.asked.append(parts[-1])
        name = parts[-2] if parts[-1] == "content" else parts[-1]
        if self.path == "/api/records/12":
            content = json.dumps({"files": [server.entry(name) for name in server.files]}).encode()
        elif name in server.files and (parts[:3] == ["org", "liver", "resolve"] or parts[0] == "api"):
            content = server.files[name]
        else:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(server.sizes.get(name, len(content)) if not with_body else len(content)))
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if with_body:
            self.wfile.write(content)


@pytest.fixture
def server(saved, monkeypatch, tmp_path):
    with Server(saved) as one:
        threading.Thread(target=one.serve_forever, daemon=True).start()
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setattr(constants, "ENDPOINT", one.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", one.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(zenodo, "ZENODO", one.url)
        yield one
        one.shutdown()


def same(found, saved) -> bool:
    section = make_section(seed=3).inputs
    expected = models.load(saved).predict(section).expression
    return np.array_equal(found.predict(section).expression, expected)


def test_a_page_of_the_hub_is_the_model_that_was_saved(server, saved, caplog):
    (saved / "notes.txt").unlink(missing_ok=True)
    server.files["evil.py"] = b"raise SystemExit"
    with caplog.at_level("INFO", "sthisto"):
        assert same(models.from_hub("org/liver"), saved)
    assert COMMIT in caplog.text
    assert "evil.py" not in server.asked
    server.files.clear()
    server.asked.clear()
    assert same(models.from_hub("org/liver", revision=COMMIT), saved)


def test_what_the_hub_does_not_hold_is_said_with_a_way_out(server):
    with pytest.raises(OSError, match=r"could not be fetched(.|\n)*hf download org/other"):
        models.from_hub("org/other")
    for wrong in ("liver", "../liver", "org/../x", "https://host/x", "org/a b"):
        with pytest.raises(ValueError, match="owner and name"):
            models.from_hub(wrong)


def test_files_of_the_hub_are_checked(server):
    server.files["model.safetensors"] += b"\0"
    with pytest.raises(ValueError, match="SHA-256"):
        models.from_hub("org/liver")


def test_files_that_are_too_large_are_not_fetched(server):
    server.sizes["config.json"] = 2**40
    with pytest.raises(ValueError, match="states a size"):
        models.from_hub("org/liver")


def test_a_model_is_saved_to_the_hub_as_to_a_folder(server, saved, monkeypatch):
    calls = []

    def upload(self, *, repo_id, folder_path, revision, commit_message):
        calls.append((self.endpoint, repo_id, revision, commit_message))
        server.files = {file.name: file.read_bytes() for file in folder_path.iterdir()}

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", lambda self, *names, **how: calls.append((names, how)))
    monkeypatch.setattr(huggingface_hub.HfApi, "upload_folder", upload)
    server.files = {}
    models.push_to_hub(models.load(saved), "org/liver", revision="v1")
    assert calls[0] == (("org/liver",), {"private": True, "exist_ok": True})
    assert calls[1] == (server.url, "org/liver", "v1", "color of 12 genes")
    assert same(models.from_hub("org/liver"), saved)


def test_without_a_login_the_hub_refuses(server, saved):
    with pytest.raises(OSError, match="hf auth login"):
        models.push_to_hub(models.load(saved), "org/liver")


@pytest.mark.parametrize("doi", ["10.5281/zenodo.12", "https://doi.org/10.5281/zenodo.12", "doi:10.5281/ZENODO.12"])
def test_a_record_of_zenodo_is_the_model_and_is_kept(server, saved, doi):
    server.files["README.md"] = b"about"
    assert same(models.from_zenodo(doi), saved)
    assert "README.md" not in server.asked
    server.files.clear()
    assert same(models.from_zenodo(doi), saved)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (lambda s: s.checksums.update({"bank.safetensors": "0" * 32}), "arrived damaged"),
        (lambda s: s.sizes.update({"config.json": 10}), "arrived damaged"),
        (lambda s: s.sizes.update({"model.safetensors": 2**50}), "states a size"),
        (lambda s: s.hosts.update({"config.json": "http://127.0.0.2:1"}), "not on"),
        (lambda s: s.files.pop("manifest.json"), "no saved model"),
        (lambda s: s.files.pop("model.safetensors"), "lacks model.safetensors"),
        (lambda s: s.files.update({"model.safetensors": b"other"}), "SHA-256"),
    ],
)
def test_records_that_are_not_what_they_say_are_refused(server, tmp_path, monkeypatch, fault, words):
    from sthisto import settings

    monkeypatch.setattr(settings, "cache_dir", tmp_path)
    fault(server)
    with pytest.raises(ValueError, match=words):
        models.from_zenodo("10.5281/zenodo.12")


def test_other_dois_and_unknown_records_are_refused(server):
    with pytest.raises(ValueError, match="expected one of Zenodo"):
        models.from_zenodo("10.1093/bib/bbaf422")
    with pytest.raises(OSError, match="Without a network"):
        models.from_zenodo("10.5281/zenodo.13")
