"""What the emulated POST /v1/generate takes and what it refuses."""

from __future__ import annotations

from typing import Any, Self

import httpx
import pytest

from tests.emulated import KEY, ORIGIN, desk, error_of

URL = "https://a.test/1.png"


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"prompt": "x" * 2000}, id="a prompt of 2000 characters"),
        pytest.param({"prompt": "🥚" * 2000}, id="characters are not bytes"),
        pytest.param({"model": "some-model-of-tomorrow"}, id="an unknown model"),
        pytest.param({"negative_prompt": ""}, id="an empty negative prompt"),
        pytest.param({"negative_prompt": "x" * 1000}, id="a negative prompt of 1000 characters"),
        pytest.param({"aspect_ratio": "9:16"}, id="a tall picture"),
        pytest.param({"num_outputs": 4}, id="four outputs"),
        pytest.param({"resolution": "2k"}, id="a known resolution"),
        pytest.param({"image_urls": [URL] * 9}, id="nine image URLs"),
        pytest.param({"webhook_url": "https://a.test/" + "x" * 2033}, id="2048 characters of URL"),
        pytest.param({"webhook_url": "https://a.test:8443/x?y"}, id="a webhook on a port"),
        pytest.param({"duration": 60}, id="a minute of video"),
        pytest.param({"resolution": None, "image_urls": None}, id="null is absent"),
        pytest.param({"style": {"deep": [1]}}, id="unknown fields"),
    ],
)
async def test_documented_requests_are_taken(fields: dict[str, Any]) -> None:
    """Everything within the limits is 202."""
    async with desk() as here:
        answer = await here.post(**fields)
    assert answer.status_code == 202, answer.text


@pytest.mark.parametrize(
    ("field", "value"),
    [
        pytest.param("model", None, id="a model is required"),
        pytest.param("model", "", id="a model has a name"),
        pytest.param("model", 7, id="a model is text"),
        pytest.param("prompt", None, id="a prompt is required"),
        pytest.param("prompt", "", id="a prompt is not empty"),
        pytest.param("prompt", "x" * 2001, id="a prompt has at most 2000 characters"),
        pytest.param("prompt", ["A cat"], id="a prompt is text"),
        pytest.param("negative_prompt", "x" * 1001, id="at most 1000 characters to avoid"),
        pytest.param("aspect_ratio", "4:3", id="two aspect ratios only"),
        pytest.param("aspect_ratio", ["16:9"], id="one aspect ratio"),
        pytest.param("num_outputs", 0, id="at least one output"),
        pytest.param("num_outputs", 5, id="at most four outputs"),
        pytest.param("num_outputs", True, id="true is not a number"),
        pytest.param("num_outputs", 2.0, id="a whole number of outputs"),
        pytest.param("resolution", "8k", id="three resolutions only"),
        pytest.param("image_urls", URL, id="image URLs are a list"),
        pytest.param("image_urls", [URL] * 10, id="at most nine image URLs"),
        pytest.param("image_urls", [URL, "ftp://a.test/x"], id="image URLs are for the web"),
        pytest.param("image_urls", [7], id="image URLs are text"),
        pytest.param("webhook_url", "http://a.test/x", id="webhooks are https"),
        pytest.param("webhook_url", "https://a.test/" + "x" * 2034, id="at most 2048 characters"),
        pytest.param("webhook_url", "https:///x", id="a webhook has a host"),
        pytest.param("webhook_url", "https://a.test/a b", id="a URL has no spaces"),
        pytest.param("webhook_url", "https://a.test:99999/", id="a port is possible"),
        pytest.param("webhook_url", "https://[::1/x", id="brackets are closed"),
        pytest.param("duration", 0, id="at least a second of video"),
        pytest.param("duration", 61, id="at most a minute of video"),
    ],
)
async def test_fields_out_of_range_are_refused_by_name(field: str, value: Any) -> None:
    """400 VALIDATION_ERROR; the message begins with the field, and nothing is done."""
    async with desk() as here:
        answer = await here.post(**{field: value})
    assert error_of(answer) == (400, "VALIDATION_ERROR")
    assert answer.json()["error"]["message"].startswith(f"{field} ")
    assert here.emulator.accepted == []


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"{", id="half an object"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b"null", id="null"),
        pytest.param(b'{"prompt": "\xff"}', id="not UTF-8"),
        pytest.param(b'{"n": ' + b"9" * 5000 + b"}", id="an enormous number"),
        pytest.param(b"[" * 100_000, id="a very deep list"),
    ],
)
async def test_bodies_that_are_no_json_objects_are_refused(body: bytes) -> None:
    """400 BAD_REQUEST, whatever the bytes."""
    async with desk() as here:
        answer = await here.http.post("/v1/generate", content=body)
    assert error_of(answer) == (400, "BAD_REQUEST")


class Blanks(httpx.AsyncByteStream):
    """64 pieces of 64 KiB, and how many of them were read."""

    read = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self.read == 64:
            raise StopAsyncIteration
        self.read += 1
        return b" " * 65536


async def test_a_body_larger_than_a_mebibyte_is_refused() -> None:
    """413, without reading it to its end."""
    body = Blanks()
    async with desk() as here:
        request = httpx.Request("POST", f"{ORIGIN}/v1/generate", headers=KEY, stream=body)
        answer = await here.http.send(request)
    assert error_of(answer) == (413, "BAD_REQUEST")
    assert body.read == 17
