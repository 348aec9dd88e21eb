"""What every request must have before anything looks at it, and what every answer carries."""

import hmac
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from conf.secrets import masked
from launcher.board.address import Proxy

HOSTS = ("localhost", "127.0.0.1", "[::1]")  # any other name leads to this machine by DNS rebinding alone
ONE_EACH = ("host", "authorization", "origin", "content-type", "content-length")
LARGEST_BODY = 2**20
LONGEST_LENGTH = 9  # digits
ANSWER_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True)
class Refusal:
    status: int
    sentence: str


def refusal(method: str, path: str, headers: Headers, token: str, open_paths: Sequence[str], proxy: Proxy | None = None) -> Refusal | None:
    """Why a request is not answered; None where it is. Nothing but `open_paths`, which hold no data, is served without the token."""
    for name in ONE_EACH:
        if len(headers.getlist(name)) > 1:
            return Refusal(400, f"The request has the header {name} more than once.")
    host = headers.get("host", "")
    origins = [f"http://{host}"] if name_of(host) in HOSTS else []
    if proxy is not None and (origins or host.lower() == proxy.host):
        origins.append(proxy.origin)
    if not origins:
        return Refusal(403, f"The board answers at {', '.join(HOSTS)} alone. Forward a port of your own machine to it.")
    if headers.get("origin", origins[0]) not in origins:
        return Refusal(403, "The request comes from a page that is not the board's.")
    if method in ("GET", "HEAD") and path in open_paths:
        return None
    if not hmac.compare_digest(headers.get("authorization", "").encode(), f"Bearer {token}".encode()):
        return Refusal(401, "The request lacks the token. Open the address that `regimen board` printed.")
    if method == "POST" and headers.get("content-type", "") != "application/json":
        return Refusal(415, "The board takes application/json alone.")
    length = headers.get("content-length", "0")
    if not length.isdecimal() or len(length) > LONGEST_LENGTH or int(length) > LARGEST_BODY:
        return Refusal(413, f"The board takes at most {LARGEST_BODY:,} bytes.")
    return None


def name_of(host: str) -> str:
    """The name in a Host header, without its port; empty for what is not written as name:port."""
    name, colon, port = host.rpartition(":")
    if host.endswith("]") or not colon:
        return host.lower()
    return name.lower() if port.isdecimal() else ""


class Guard:
    """ASGI: answers what is refused itself, lets the rest through, and gives every answer its headers."""

    def __init__(self, app: ASGIApp, token: str, open_paths: Sequence[str], proxy: Proxy | None = None) -> None:
        self.app, self.token, self.open_paths, self.proxy = app, token, tuple(open_paths), proxy
        self.last = time.monotonic()  # when somebody with the token last asked for something

    def idle(self) -> float:
        """Seconds."""
        return time.monotonic() - self.last

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return  # no websockets; nothing is to be done at the start and the end

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update({**ANSWER_HEADERS, **kept(message)})
            await send(message)

        scope = scope if self.proxy is None else without_prefix(scope, self.proxy.path)
        refused = refusal(scope["method"], scope["path"], Headers(scope=scope), self.token, self.open_paths, self.proxy)
        if refused is None and scope["path"] not in self.open_paths:
            self.last = time.monotonic()
        app = self.app if refused is None else PlainTextResponse(refused.sentence, refused.status)
        try:
            await app(scope, receive, with_headers)
        except Exception:  # noqa: BLE001 - a bug: the page has had its sentence, and the other pages go on
            print(masked(traceback.format_exc()), file=sys.stderr)


def without_prefix(scope: Scope, prefix: str) -> Scope:
    """Some proxies leave their prefix before each path, and some remove it."""
    path = scope["path"]
    return {**scope, "path": path.removeprefix(prefix)} if path.startswith(f"{prefix}/") else scope


def kept(message: Message) -> dict[str, str]:
    """Libraries' files change with a new version alone, and may be kept; they ask again with their tag."""
    found = Headers(raw=message["headers"]).get("cache-control")
    return {} if found is None else {"Cache-Control": found}
