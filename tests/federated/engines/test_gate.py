"""The gate passes on what a SuperNode asks, as it is, and nothing that could be spelt otherwise."""

import asyncio
from typing import Any

import httpx
import pytest

from phoenix_pipeline.federated.engines.gate import PATHS, build_gate


class SuperLinkDouble:
    """Remembers what reaches it, and answers with what it was asked."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, str, bytes, dict[bytes, bytes]]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            event = await receive()
            body += event.get("body", b"")
            more = event.get("more_body", False)
        self.heard.append((scope["method"], scope["path"], body, dict(scope["headers"])))
        headers = [(b"content-type", b"application/x-protobuf"), (b"flwr-x", b"1")]
        await send({"type": "http.response.start", "status": 403, "headers": headers})
        await send({"type": "http.response.body", "body": body[::-1]})


def ask(
    method: str, path: str, content: bytes = b"abc", **options: Any
) -> tuple[httpx.Response, SuperLinkDouble]:
    async def talk() -> httpx.Response:
        inner = httpx.ASGITransport(app=double)
        async with httpx.AsyncClient(transport=inner, base_url="https://127.0.0.1:8001") as link:
            outer = httpx.ASGITransport(app=build_gate(link, most_bytes=10))
            async with httpx.AsyncClient(transport=outer, base_url="https://gate") as site:
                request = site.build_request(method, "/", content=content, **options)
                request.url = request.url.copy_with(raw_path=path.encode())
                return await site.send(request)

    double = SuperLinkDouble()
    return asyncio.run(talk()), double


@pytest.mark.parametrize("path", PATHS)
def test_a_nodes_request_and_its_answer_pass_as_they_are(path: str) -> None:
    answer, link = ask("POST", path, headers={"flwr-signature": "s", "te": "trailers"})
    (method, seen, body, headers), *more = link.heard
    assert (method, seen, body, more) == ("POST", path, b"abc", [])
    assert headers[b"flwr-signature"] == b"s" and b"te" not in headers
    assert (answer.status_code, answer.content) == (403, b"cba")
    assert answer.headers["flwr-x"] == "1"


@pytest.mark.parametrize(
    "path",
    [
        "/v1/control/list-nodes",
        "/v1/control/register-node",
        "/v1/control/start-run",
        "/v1/runtime/acquire-task",
        "/v1/fleet/register-node",
        "/v1/fleet/unregister-node",
        "/v1/fleet/../control/list-nodes",
        "/v1/fleet/%2e%2e/control/list-nodes",
        "/v1/fleet/get-run/../../control/list-nodes",
        "/v1/fleet/get-run%2f..%2f..%2fcontrol%2flist-nodes",
        "//v1/control/list-nodes",
        "/v1/fleet/get-run/",
        "/V1/FLEET/GET-RUN",
        "/docs",
        "/openapi.json",
        "/",
    ],
)
@pytest.mark.parametrize("method", ["POST", "GET"])
def test_nothing_else_passes(method: str, path: str) -> None:
    answer, link = ask(method, path)
    assert answer.status_code == 404
    assert link.heard == []


def test_only_posts_of_a_known_and_bounded_length_pass() -> None:
    assert ask("GET", PATHS[0])[0].status_code == 405
    assert ask("POST", PATHS[0], b"x" * 11)[0].status_code == 413
    assert ask("POST", PATHS[0], b"x" * 10)[0].status_code == 403

    async def endless() -> Any:
        yield b"x"

    answer, link = ask("POST", PATHS[0], endless())  # type: ignore[arg-type]
    assert (answer.status_code, link.heard) == (411, [])


def test_a_query_does_not_reach_the_superlink() -> None:
    answer, link = ask("POST", f"{PATHS[0]}?x=/v1/control/list-nodes")
    assert answer.status_code == 403 and link.heard[0][1] == PATHS[0]
