"""The page at ``/docs``."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest

from dynein.api.docs_page import docs_page
from dynein.api.openapi import openapi_document
from dynein.settings import Settings
from tests.unit.api.setting import Api

VOID = {"meta", "br", "hr", "link", "img", "input"}


class Page(HTMLParser):
    """Checks that elements are nested well, and collects what a browser would load, run or follow."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.links: set[str] = set()
        self.ids: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            self.attributes.add(name)
            if name == "id":
                self.ids.append(value or "")
            if name in {"href", "src", "action"}:
                self.links.add(value or "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def text() -> str:
    return docs_page(openapi_document(Settings()))


def test_it_loads_and_runs_nothing(text: str) -> None:
    page = Page(text)
    assert not page.tags & {"script", "iframe", "img", "link", "object", "embed", "form", "base"}
    assert not [name for name in page.attributes if name.startswith("on") or name == "style"]
    assert {link for link in page.links if not link.startswith("#")} == {"/openapi.json"}
    assert "http://" not in re.sub(r"<(?:pre|code|p|td)>.*?</", "", text, flags=re.DOTALL)


def test_its_links_lead_somewhere(text: str) -> None:
    page = Page(text)
    assert len(set(page.ids)) == len(page.ids)
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)


def test_it_has_every_operation_every_schema_and_every_problem(text: str) -> None:
    document = openapi_document(Settings())
    page = Page(text)
    operations = [
        operation for item in document["paths"].values() for operation in item.values() if isinstance(operation, dict)
    ]
    wanted = {operation["operationId"] for operation in operations}
    wanted |= {f"schema-{name}" for name in document["components"]["schemas"]}
    assert wanted == set(page.ids)
    for operation in operations:
        assert all(f"<b>{status}</b>" in text for status in operation["responses"])


def test_what_looks_like_html_is_text() -> None:
    document = openapi_document(Settings())
    document["info"]["description"] = "<script>`<b>`</script> **<i>**"
    page = docs_page(document)
    assert "<script" not in page
    assert "<code>&lt;b&gt;</code>&lt;/script&gt; <b>&lt;i&gt;</b>" in page


async def test_it_is_served_with_a_policy_that_allows_its_style_sheet_and_nothing_else() -> None:
    async with Api().http() as http:
        response = await http.get("/docs")
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/html; charset=utf-8"
        [style] = re.findall(r"<style>(.*?)</style>", response.text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
        policy = response.headers["content-security-policy"]
        assert f"style-src 'sha256-{digest}'" in policy
        assert policy.startswith("default-src 'none';")
        assert "unsafe" not in policy
        assert (await http.get("/redoc")).status_code == 404


async def test_every_response_forbids_guessing_its_type_and_storing_it() -> None:
    async with Api().http() as http:
        for method, path in (("POST", "/v1/jobs"), ("POST", "/v1/tokens"), ("GET", "/docs"), ("GET", "/nowhere")):
            response = await http.request(method, path)
            assert response.headers["x-content-type-options"] == "nosniff"
            assert response.headers["cache-control"] == "no-store"
