"""The routes of a server, and who may use them."""

import functools
import hmac
import sys
import time
import traceback
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from dig_jax.serve.asking import prompt_of
from dig_jax.serve.chat import Serving, answer
from dig_jax.serve.example import read_example
from dig_jax.serve.http import Gone
from dig_jax.serve.refusal import Refused

_PAGE = Path(__file__).with_name("page.html")
_POLICY = (  # the page has all that it needs in itself
    "default-src 'none'; img-src 'self' data: blob:; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)


def make_app(serving: Serving) -> Starlette:
    routes = [
        Route("/v1/chat/completions", _bound(_chat, serving), methods=["POST"]),
        Route("/v1/models", _bound(_models, serving)),
        Route("/v1/models/{name:path}", _bound(_models, serving)),
        Route("/metrics", _bound(_metrics, serving)),
        Route("/health", _bound(_health, serving, open_to_all=True)),
        Route("/example", _bound(_example, serving, open_to_all=True)),
    ]
    if _PAGE.is_file():
        routes.append(Route("/", _bound(_page, serving, open_to_all=True)))
    return Starlette(routes=routes, exception_handlers={HTTPException: _told_by_starlette})


def _bound(handler, serving: Serving, *, open_to_all: bool = False):
    """A route's endpoint: who asks is checked, errors have OpenAI's form, and all is counted."""

    @functools.wraps(handler)
    async def endpoint(request: Request) -> Response:
        start = time.monotonic()
        try:
            _check_host(serving, request)
            if not open_to_all:
                _check_key(serving, request)
            response = await handler(serving, request)
        except Refused as refused:
            response = _refusal(refused)
        except Gone:
            response = Response(status_code=499)
        except Exception as error:  # a bug: told without the texts that it may hold
            where = traceback.extract_tb(error.__traceback__)[-1]
            print(f"{type(error).__name__} in {where.filename}:{where.lineno}", file=sys.stderr)
            response = _refusal(Refused(500, "the server has a fault", code="internal_error"))
        return _counted(serving, response, start, timed=handler is _chat)

    return endpoint


def _counted(serving: Serving, response, start: float, *, timed: bool):
    """The same response; when it has been sent it is counted."""

    async def counted(scope, receive, send):
        try:
            await response(scope, receive, send)
        finally:
            status = getattr(response, "status_code", 200)
            serving.metrics.ended(status)
            if timed and status == 200:
                serving.metrics.took("request_seconds", time.monotonic() - start)

    return counted


def _check_host(serving: Serving, request: Request) -> None:
    """Without a key nobody else's page may have a browser ask here, by whatever name."""
    name = request.headers.get("host", "").rpartition("@")[2]
    name = name[: name.rfind("]") + 1] or name.partition(":")[0]
    if serving.hosts and name.lower() not in serving.hosts:
        raise Refused(
            403,
            f"host: this server is not called {name[:64]!r}; use {sorted(serving.hosts)[0]}, or "
            f"start it with --api-key-file",
            code="wrong_host",
        )


def _check_key(serving: Serving, request: Request) -> None:
    if serving.key is None:
        return
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    right = hmac.compare_digest(given.strip().encode(), serving.key.encode())
    if scheme.lower() != "bearer" or not right:
        text = "the key is wrong or missing; send the header Authorization: Bearer KEY"
        raise Refused(401, text, code="invalid_api_key")


def _check_ready(serving: Serving) -> None:
    state = serving.worker.state
    if state == "starting":
        text = "the server compiles its programs; try again in a while"
        raise Refused(503, text, code="not_ready", retry=10)
    if state != "ready":
        raise Refused(503, "the server is ending", code="ending", retry=30)


async def _chat(serving: Serving, request: Request):
    _check_ready(serving)
    return await answer(serving, request)


async def _models(serving: Serving, request: Request) -> Response:
    limits = serving.limits
    longest = max(shape.prefix + shape.suffix for shape in serving.shapes)
    told = {
        "id": serving.name,
        "object": "model",
        "created": 0,
        "owned_by": "dig_jax",
        "max_model_len": longest + limits.most,
        "max_prompt_tokens": longest,
        "max_tokens": limits.most,
        "max_pictures": limits.pictures,
    }
    wanted = request.path_params.get("name")
    if wanted is None:
        return JSONResponse({"object": "list", "data": [told]})
    if wanted != serving.name:
        text = f"model: this server has {serving.name!r} alone"
        raise Refused(404, text, param="model", code="model_not_found")
    return JSONResponse(told)


async def _health(serving: Serving, request: Request) -> Response:
    state = serving.worker.state
    return JSONResponse({"status": state}, 200 if state == "ready" else 503)


async def _metrics(serving: Serving, request: Request) -> Response:
    return PlainTextResponse(serving.metrics.text(), media_type="text/plain; version=0.0.4")


async def _example(serving: Serving, request: Request) -> Response:
    return JSONResponse(read_example(prompt_of(serving.policy).question))


async def _page(serving: Serving, request: Request) -> Response:
    headers = {"content-security-policy": _POLICY, "x-content-type-options": "nosniff"}
    return HTMLResponse(_PAGE.read_text(encoding="utf-8"), headers=headers)


def _refusal(refused: Refused) -> Response:
    headers = {"retry-after": str(refused.retry)} if refused.retry else {}
    if refused.status in (408, 413):
        headers["connection"] = "close"  # the rest of the body is not read
    return JSONResponse(refused.body(), refused.status, headers)


async def _told_by_starlette(request: Request, error: HTTPException) -> Response:
    """Unknown paths and methods."""
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code)
    text = f"{request.method} {request.url.path[:100]}: {error.detail}"
    response = _refusal(Refused(error.status_code, text, code=code))
    response.headers.update(error.headers or {})
    return response
