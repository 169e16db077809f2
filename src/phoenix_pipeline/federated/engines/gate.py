"""The gate: the one address that sites reach, which passes on what SuperNodes need and no more.

Flower 1.41 serves nodes, whoever submits runs and its own programs on one port, and its open-source
version knows no accounts: who reaches that port can list and unregister nodes, register a key, and
submit code. So the SuperLink listens on the coordinator's loopback only, and this program before it
passes requests to the paths that a registered node uses, as they are. Usage, at the coordinator::

    python -m phoenix_pipeline.federated.engines.gate --port 8000 --superlink 127.0.0.1:8001 \\
        --certificate superlink.pem --key superlink.key --authority ca.crt
"""

import argparse
import logging
import ssl
from collections.abc import AsyncIterator

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

logger = logging.getLogger(__name__)

# Without register-node and unregister-node: keys are registered by the coordinator.
PATHS = tuple(
    f"/v1/fleet/{name}"
    for name in (
        "activate-node",
        "deactivate-node",
        "send-node-heartbeat",
        "pull-messages",
        "push-messages",
        "get-run",
        "get-fab",
        "push-object",
        "pull-object",
        "confirm-message-received",
    )
)
# Of one connection, or of how a body is cut into pieces.
_NOT_PASSED_ON = {
    *("connection", "host", "keep-alive", "proxy-authenticate", "proxy-authorization"),
    *("te", "trailer", "transfer-encoding", "upgrade"),
}
_WAIT_S = 300.0


def build_gate(superlink: httpx.AsyncClient, most_bytes: int) -> Starlette:
    """Return the application; ``superlink`` has the SuperLink's address as its base.

    Everything but a POST to one of ``PATHS`` is answered by 404 or 405 here, and a body of more
    than ``most_bytes`` by 413.
    """

    def route(path: str) -> Route:
        async def pass_on(request: Request) -> Response:
            length = request.headers.get("content-length", "")
            if not length.isdecimal():
                return Response(status_code=411)
            if int(length) > most_bytes:
                return Response(status_code=413)
            return await _ask(superlink, path, request)

        return Route(path, pass_on, methods=["POST"])

    gate = Starlette(routes=[route(path) for path in PATHS])
    gate.router.redirect_slashes = False
    return gate


async def _ask(superlink: httpx.AsyncClient, path: str, request: Request) -> Response:
    """Return the SuperLink's answer; ``path`` is the gate's own text, not what was spelt."""
    headers = [(n, v) for n, v in request.headers.items() if n not in _NOT_PASSED_ON]
    passed = superlink.build_request("POST", path, headers=headers, content=request.stream())
    try:
        answer = await superlink.send(passed, stream=True)
    except httpx.HTTPError as error:
        logger.warning("the SuperLink does not answer: %s", type(error).__name__)
        return Response(status_code=502)
    back = {name: value for name, value in answer.headers.items() if name not in _NOT_PASSED_ON}
    return StreamingResponse(_body(answer), answer.status_code, back)


async def _body(answer: httpx.Response) -> AsyncIterator[bytes]:
    """Yield a body as it came: headers say how it is compressed."""
    try:
        async for part in answer.aiter_raw():
            yield part
    finally:
        await answer.aclose()


def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--host", default="0.0.0.0")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--superlink", default="127.0.0.1:8001", help="its address on this machine")
    parser.add_argument("--certificate", required=True, help="PEM file that sites check")
    parser.add_argument("--key", required=True, help="PEM file of its private key")
    parser.add_argument("--authority", required=True, help="PEM file of who signed the SuperLink's")
    parser.add_argument("--most-bytes", type=int, default=1 << 31, help="of one request")
    asked = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    superlink = httpx.AsyncClient(
        base_url=f"https://{asked.superlink}",
        verify=ssl.create_default_context(cafile=asked.authority),
        timeout=_WAIT_S,
        trust_env=False,
    )
    uvicorn.run(
        build_gate(superlink, asked.most_bytes),
        host=asked.host,
        port=asked.port,
        ssl_certfile=asked.certificate,
        ssl_keyfile=asked.key,
        access_log=False,
        server_header=False,
    )


if __name__ == "__main__":
    main()
