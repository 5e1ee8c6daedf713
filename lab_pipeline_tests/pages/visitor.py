"""A browser without a screen on the pages of a home."""

from __future__ import annotations

import re
import warnings
from html import unescape

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # httpx does for these tests, whatever Starlette would rather have
    from starlette.testclient import TestClient

from lab_pipeline.core.home import Home
from lab_pipeline.pages.access import Access
from lab_pipeline.pages.app import build_app
from lab_pipeline.pages.links import page

ADDRESS = "http://127.0.0.1:3001"
LOCAL = Access(hosts=frozenset({"127.0.0.1"}))


class Visitor:
    """Someone on this machine, or with `access` as it says, who reads pages and sends forms."""

    def __init__(self, home: Home, access: Access = LOCAL, address: str = ADDRESS) -> None:
        self.address = address
        self.client = TestClient(build_app(home, access), base_url=address, follow_redirects=False)

    def html(self, name: str, code: int = 200, **query: object) -> str:
        """The page as it is sent."""
        answer = self.client.get(page(name, **query))
        assert answer.status_code == code, (answer.status_code, answer.text)
        return answer.text

    def text(self, name: str, code: int = 200, **query: object) -> str:
        """The text of the page's content as a person reads it, on one line."""
        main = self.html(name, code, **query).partition("<main")[2]
        within = re.sub("<wbr>|</?(?:b|u|code|span|mark)(?: [^>]*)?>", "", main.partition(">")[2])
        return " ".join(unescape(re.sub("<[^>]*>", " ", within)).split())

    def send(self, name: str, code: int = 200, headers: dict[str, str] | None = None, **fields: str) -> str:
        """Send a form as a page of this server would."""
        found = re.search(r'name="token" value="(\w+)"', self.html("edit"))
        assert found
        answer = self.client.post(
            page(name), data={"token": found[1], **fields}, headers={"Origin": self.address, **(headers or {})}
        )
        assert answer.status_code == code, (answer.status_code, answer.text)
        return answer.text
