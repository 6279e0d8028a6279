import io
import json
import subprocess

import numpy as np
import pytest
import requests

from sthisto import settings
from sthisto.datasets import _download, her2st


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.delenv("STHISTO_HER2ST", raising=False)
    monkeypatch.setattr(settings, "cache_dir", tmp_path / "cache")
    monkeypatch.setattr(settings, "progress", False)
    return tmp_path / "cache" / "her2st"


PINNED = "0123456789abcdef" * 2 + "01234567"


class Server:
    """Answers as GitHub does, from a folder."""

    def __init__(self, root):
        self.root, self.asked, self.damaged = root, [], ""

    def get(self, url, **_):
        self.asked.append(url)
        response = requests.Response()
        response.status_code = 200
        response.raw = io.BytesIO(self.content(url))
        return response

    def content(self, url):
        if url.endswith("/commits/HEAD"):
            return json.dumps({"sha": "abc123"}).encode()
        files = [p for p in self.root.rglob("*") if p.is_file()]
        revision = PINNED if PINNED in url else "abc123"
        if f"/git/trees/{revision}" in url:
            tree = [
                {"path": str(p.relative_to(self.root)), "sha": _download.git_object_id(p), "type": "blob"}
                for p in files
            ]
            return json.dumps({"tree": tree, "truncated": False}).encode()
        path = url.split(f"/{revision}/")[1]
        return b"damaged" if path == self.damaged else (self.root / path).read_bytes()


@pytest.fixture
def server(tmp_path, make_section, monkeypatch):
    root = make_section().write(tmp_path / "remote")
    make_section(name="C2", labels={(5, 10): "invasive cancer"}).write(root)
    server = Server(root)
    monkeypatch.setattr(requests, "get", server.get)
    return server


def test_only_the_files_of_the_wanted_sections_are_fetched(cache, server):
    sdata = her2st(sections=["C2"])
    assert set(sdata["counts"].obs["section"]) == {"C2"}
    assert sdata["counts"].obs["annotation"].notna().sum() == 1
    assert not any("B1" in url for url in server.asked)


def test_what_is_there_is_not_fetched_again(cache, server):
    first = her2st(sections=["B1"])
    n_asked = len(server.asked)
    second = her2st(sections=["B1"])
    assert len(server.asked) == n_asked
    np.testing.assert_array_equal(first["counts"].X.toarray(), second["counts"].X.toarray())


def test_a_commit_is_kept_beside_what_is_current(cache, server, caplog):
    caplog.set_level("INFO", "sthisto")
    current = her2st(sections=["B1"])
    assert "the files of commit abc123" in caplog.text
    n_asked = len(server.asked)
    pinned = her2st(sections=["B1"], revision=PINNED)
    assert f"the files of commit {PINNED}" in caplog.text
    assert all(PINNED in url for url in server.asked[n_asked:])
    assert sum("/commits/" in url for url in server.asked) == 1
    assert {folder.name for folder in cache.parent.iterdir()} >= {"her2st", f"her2st-{PINNED}"}
    np.testing.assert_array_equal(current["counts"].X.toarray(), pinned["counts"].X.toarray())


@pytest.mark.parametrize("revision", ["main", "abc123", PINNED.upper(), f"{PINNED}0", "../" + PINNED[3:]])
def test_what_is_no_commit_is_refused(cache, server, revision):
    with pytest.raises(ValueError, match="`revision` must be the id of a commit, 40 hexadecimal digits"):
        her2st(revision=revision)
    assert not server.asked


def test_a_folder_and_a_commit_are_not_given_together(tmp_path):
    with pytest.raises(ValueError, match="`revision` chooses what is downloaded, but `path` names the folder"):
        her2st(tmp_path, revision=PINNED)


def test_a_damaged_file_is_refused_and_the_next_try_goes_on(cache, server):
    server.damaged = "data/ST-spotfiles/B1_selection.tsv"
    with pytest.raises(ValueError, match="arrived damaged"):
        her2st(sections=["B1"])
    assert not (cache / server.damaged).exists()
    n_asked, server.damaged = len(server.asked), ""
    assert her2st(sections=["B1"])["counts"].n_obs == 12
    assert not any("commits" in url or "trees" in url for url in server.asked[n_asked:])


def test_a_section_that_the_repository_lacks_is_refused(cache, server):
    with pytest.raises(KeyError, match="'B1', 'C2'"):
        her2st(sections=["Z1"])


def test_without_network_the_error_says_what_to_put_where(cache, monkeypatch):
    def unreachable(*_, **__):
        raise requests.ConnectionError

    monkeypatch.setattr(requests, "get", unreachable)
    with pytest.raises(OSError, match=r"(?s)could not be fetched.*STHISTO_HER2ST.*ST-spotfiles/A1_selection"):
        her2st()


def test_object_ids_are_those_of_git(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"H&E\n\x00\xff")
    expected = subprocess.run(["git", "hash-object", str(file)], capture_output=True, text=True, check=True)
    assert _download.git_object_id(file) == expected.stdout.strip()


def test_what_was_damaged_on_disk_is_fetched_again(cache, server, caplog):
    expected = her2st(sections=["B1"])["counts"].X.toarray()
    file = cache / "data" / "ST-spotfiles" / "B1_selection.tsv"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + b"2")
    np.testing.assert_array_equal(her2st(sections=["B1"])["counts"].X.toarray(), expected)
    assert file.read_bytes() == whole
    assert "B1_selection.tsv is damaged" in caplog.text


PAGE = b"<!DOCTYPE html>\n<html><body>Log in to the network</body></html>"


@pytest.mark.parametrize("asked", ["/commits/HEAD", "/git/trees/", "selection.tsv"])
def test_the_login_page_of_a_proxy_is_not_kept(cache, server, monkeypatch, asked):
    content = server.content
    monkeypatch.setattr(server, "content", lambda url: PAGE if asked in url else content(url))
    with pytest.raises(ValueError, match="arrived damaged: it is a web page, perhaps the login page of a proxy"):
        her2st(sections=["B1"])
    assert not [file for file in cache.rglob("*") if file.is_file() and file.read_bytes() == PAGE]
    monkeypatch.setattr(server, "content", content)
    assert her2st(sections=["B1"])["counts"].n_obs == 12


@pytest.mark.parametrize("name", ["revision.json", "listing.json"])
@pytest.mark.parametrize("content", [b"", b"[]", b'{"sha": "../../x", "tree": [3]}', PAGE, b"\xff", b"[" * 5000])
def test_a_list_that_was_damaged_on_disk_is_fetched_again(cache, server, name, content):
    her2st(sections=["B1"])
    (cache / name).write_bytes(content)
    assert her2st(sections=["B1"])["counts"].n_obs == 12
    assert json.loads((cache / name).read_bytes())


@pytest.mark.parametrize("evil", ["data/ST-cnts/../../../evil", "../../evil", "/tmp/evil", "a\\b", "C:evil", ""])
def test_a_list_that_names_a_file_outside_the_folder_is_refused(cache, server, monkeypatch, evil):
    content = server.content

    def with_evil(url):
        if "/git/trees/" not in url:
            return content(url)
        listing = json.loads(content(url))
        listing["tree"].append({"path": evil, "sha": "0" * 40, "type": "blob"})
        return json.dumps(listing).encode()

    monkeypatch.setattr(server, "content", with_evil)
    with pytest.raises(ValueError, match="outside the folder of the download"):
        her2st(sections=["B1"])
    assert {file.name for file in cache.rglob("*") if file.is_file()} == {"revision.json"}
    with pytest.raises(ValueError, match="outside the folder"):
        _download.Repository("almaan/her2st", cache).fetch(evil, "0" * 40)


def test_a_list_that_github_cuts_off_is_not_kept(cache, server, monkeypatch):
    content = server.content
    monkeypatch.setattr(
        server, "content", lambda url: content(url).replace(b'"truncated": false', b'"truncated": true')
    )
    with pytest.raises(OSError, match="only a part of almaan/her2st"):
        her2st(sections=["B1"])
    assert not (cache / "listing.json").exists()
