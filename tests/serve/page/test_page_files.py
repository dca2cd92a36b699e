"""The page's files as they are served: what they may do, and that nothing comes from elsewhere."""

import hashlib
import re
from importlib.resources import files

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from herdlm.serve import page
from herdlm.serve.page import page_router

FILES = {
    file.name: file.read_text(encoding="utf-8")
    for file in files(page).iterdir()
    if file.is_file() and not file.name.startswith("__")
}
VENDORED = {"markdown-it.js": "d5432491790141da046b1197353705db03264f40b5727f3b4b591f5aba193e30"}


@pytest.fixture(scope="module")
def client():
    app = FastAPI()
    app.include_router(page_router())
    with TestClient(app) as client:
        yield client


def test_the_page_is_there_with_all_that_it_names(client):
    index = client.get("/")
    assert index.status_code == 200 and index.headers["content-type"] == "text/html; charset=utf-8"
    named = re.findall(r'(?:src|href)="([^"#]+)"', index.text)
    assert {"page/style.css", "page/main.js", "page/theme.js", "page/icon.svg"} == set(named)
    modules = {found for text in FILES.values() for found in re.findall(r'from "\./([^"]+)"', text)}
    assert "vendor/markdown-it.js" in modules
    for name in {f"/{name}" for name in named} | {f"/page/{name}" for name in modules}:
        assert client.get(name).status_code == 200
    types = {name: client.get(f"/page/{name}").headers["content-type"] for name in ("main.js", "style.css", "icon.svg")}
    assert types == {
        "main.js": "text/javascript; charset=utf-8",
        "style.css": "text/css; charset=utf-8",
        "icon.svg": "image/svg+xml",
    }


@pytest.mark.parametrize(
    "path", ["/", "/page/main.js", "/page/vendor/markdown-it.js", "/page/style.css", "/page/icon.svg"]
)
def test_every_file_comes_with_a_strict_policy(client, path):
    headers = client.get(path).headers
    policy = dict(rule.split(" ", 1) for rule in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == policy["frame-ancestors"] == "'none'"
    assert {policy[kind] for kind in ("script-src", "style-src", "connect-src", "img-src")} == {"'self'"}
    assert policy["require-trusted-types-for"] == "'script'" and policy["trusted-types"] == "'none'"
    assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer"


def test_an_unchanged_file_is_not_sent_again(client):
    first = client.get("/page/main.js")
    again = client.get("/page/main.js", headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["content-security-policy"] == first.headers["content-security-policy"]
    assert client.get("/page/main.js", headers={"if-none-match": '"other"'}).status_code == 200
    assert client.head("/").status_code == 200


@pytest.mark.parametrize(
    "path",
    ["/page/__init__.py", "/page/", "/page/vendor/", "/page/../app.py", "/page/%2e%2e/app.py", "/page/index.html"],
)
def test_nothing_else_is_served(client, path):
    assert client.get(path).status_code == 404


def test_vendored_files_are_unchanged_and_come_with_version_source_and_license():
    folder = files(page).joinpath("vendor")
    scripts = {file.name: file.read_bytes() for file in folder.iterdir() if file.name.endswith(".js")}
    assert {name: hashlib.sha256(content).hexdigest() for name, content in scripts.items()} == VENDORED
    readme = folder.joinpath("README.md").read_text(encoding="utf-8")
    assert all(digest in readme for digest in VENDORED.values())
    (version,) = re.findall(rb"^/\*! markdown-it ([\d.]+) ", scripts["markdown-it.js"])
    assert f"markdown-it {version.decode()}" in readme
    assert f"\nmarkdown-it {version.decode()}\n" in folder.joinpath("LICENSES.txt").read_text(encoding="utf-8")


def test_no_file_names_another_host():
    for name, text in FILES.items():
        addresses = set(re.findall(r"https?://[\w.]+", text)) - {"http://www.w3.org"}
        assert not addresses, f"{name} names {addresses}"


def test_no_script_turns_text_into_markup_or_code():
    forbidden = (
        r"innerHTML|outerHTML|insertAdjacentHTML|setHTML|document\.write|DOMParser|createContextualFragment|\beval\b"
    )
    for name, text in FILES.items():
        assert not re.search(rf"{forbidden}|new Function|srcdoc", text), name
    index = FILES["index.html"]
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", index)


def test_the_page_is_no_part_of_the_protocol():
    app = FastAPI()
    app.include_router(page_router())
    assert app.openapi()["paths"] == {}
