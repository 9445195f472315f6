"""OpenAI's chat messages as turns of a chat template, and the pictures among them."""

import base64
import binascii
import re
from typing import Any

from dig_jax.serve.limits import Limits, check_texts
from dig_jax.serve.refusal import Refused

_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_DATA_URL = re.compile(r"data:[\w.+-]*/?[\w.+-]*(?:;[\w.+=-]+)*;base64,", re.I)


def read_messages(messages: Any, limits: Limits) -> tuple[list[dict], list[tuple[str, bytes]]]:
    """(turns for `render_turns`, (field, file's bytes) of each picture); raises Refused."""
    if not isinstance(messages, list) or not messages:
        raise _wrong("messages", "is no list of messages")
    pictures: list[tuple[str, bytes]] = []
    turns = [_turn(one, f"messages.{n}", pictures, limits) for n, one in enumerate(messages)]
    parts = (part for turn in turns for part in turn["content"])
    check_texts(sum(len(part.get("text", "")) for part in parts), limits)
    return turns, pictures


def _turn(message: Any, where: str, pictures: list, limits: Limits) -> dict[str, Any]:
    if not isinstance(message, dict):
        raise _wrong(where, "is no object with role and content")
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str) or role not in _ROLES:
        raise _wrong(f"{where}.role", f"is none of {', '.join(_ROLES)}")
    for name in ("tool_calls", "function_call", "audio"):
        if message.get(name):
            raise _wrong(f"{where}.{name}", "is not supported: this model calls no tools")
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    if not isinstance(content, list) or not content:
        raise _wrong(f"{where}.content", "is neither a text nor a list of parts")
    read = []
    for n, part in enumerate(content):
        read.append(_part(part, f"{where}.content.{n}", pictures, limits))
        if read[-1]["type"] == "image" and role != "user":
            raise _wrong(f"{where}.content.{n}", f"is a picture; only users send them, not {role}")
    return {"role": _ROLES[role], "content": read}


def _part(part: Any, where: str, pictures: list, limits: Limits) -> dict[str, str]:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text":
        text = part.get("text")
        if not isinstance(text, str) or not _is_unicode(text):
            raise _wrong(f"{where}.text", "is no text")
        return {"type": "text", "text": text}
    if kind != "image_url":
        raise _wrong(f"{where}.type", "is neither text nor image_url")
    if len(pictures) == limits.pictures:
        raise Refused(
            400,
            f"{where}: more than {limits.pictures} pictures in a request; start the server with a "
            f"larger --pictures",
            param=where,
            code="too_many_images",
        )
    url = part.get("image_url")
    url = url.get("url") if isinstance(url, dict) else url
    pictures.append((f"{where}.image_url", _data(url, f"{where}.image_url", limits)))
    return {"type": "image"}


def _data(url: Any, where: str, limits: Limits) -> bytes:
    """A data URL's bytes: nothing is fetched from anywhere, and no file opened."""
    if not isinstance(url, str):
        raise _wrong(where, "is no object with a url")
    found = _DATA_URL.match(url[:256])
    if not found:
        scheme = re.match(r"[a-zA-Z][a-zA-Z0-9+.-]{0,20}:", url)
        what = f"a {scheme[0]} URL" if scheme and scheme[0].lower() != "data:" else "what it is"
        raise Refused(
            400,
            f"{where}.url: {what} is not fetched; send the picture itself, as "
            f"data:image/png;base64,...",
            param=where,
            code="invalid_image_url",
        )
    letters = len(url) - found.end()
    if letters > limits.picture // 3 * 4 + 4:
        raise Refused(
            413,
            f"{where}: {letters} letters of base64 are a picture of more than {limits.picture} "
            f"bytes; send it smaller, or as JPEG",
            param=where,
            code="image_too_large",
        )
    try:
        return base64.b64decode(url[found.end() :], validate=True)
    except (binascii.Error, ValueError) as error:
        raise _wrong(where, f"is no base64 ({error})", code="invalid_image_url") from error


def _is_unicode(text: str) -> bool:
    """Whether no half of a surrogate pair stands in it: JSON can say those, UTF-8 cannot."""
    return not re.search("[\ud800-\udfff]", text)


def _wrong(where: str, what: str, code: str = "invalid_value") -> Refused:
    return Refused(400, f"{where} {what}", param=where, code=code)
