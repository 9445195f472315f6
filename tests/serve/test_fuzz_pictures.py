"""Wrong, cut and changed pictures, of many formats and modes, in right requests: never a 5xx."""

import base64
import io
import json

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.serve.direct import is_openais, make_direct, send
from tests.serve.test_holds import claimed

MODES = {  # what Pillow writes, by format
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "TIFF": ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "I", "F",
             "I;16", "I;16B"),
    "JPEG": ("L", "RGB", "CMYK", "YCbCr"),
    "GIF": ("L", "P", "RGB"), "BMP": ("1", "L", "P", "RGB", "RGBA"), "TGA": ("L", "RGBA"),
    "PPM": ("1", "L", "RGB", "I;16", "F"), "WEBP": ("RGB", "RGBA"), "ICO": ("RGB", "RGBA"),
    "PCX": ("1", "L", "P", "RGB"), "SGI": ("L", "RGB"), "JPEG2000": ("L", "RGB"),
    "DDS": ("RGB", "RGBA"), "MSP": ("1",), "XBM": ("1",),
}  # fmt: skip


def files() -> list[tuple[str, bytes]]:
    """(format and mode, file) of every one that this machine's Pillow writes."""
    grey = Image.fromarray(np.random.default_rng(0).integers(0, 256, (18, 26), np.uint8))
    found = []
    for kind, modes in MODES.items():
        for mode in modes:
            held = io.BytesIO()
            try:
                same = Image.new(mode, grey.size) if mode.startswith("I;") else grey.convert(mode)
                same.save(held, kind)
            except (OSError, ValueError, KeyError):
                continue  # a codec or a conversion that this build has not
            found.append((f"{kind} {mode}", held.getvalue()))
    return found


FILES = files()
heads = st.sampled_from([
    "data:image/png;base64,", "data:image/jpeg;base64,", "data:;base64,", "DATA:image/PNG;BASE64,",
    "data:image/png;charset=utf-8;base64,", "data:image/png,", "data:text/html;base64,", "data:",
    "blob:x", "", "data:image/png;base64 ,", "ftp://a/b;base64,", "data:" + "a" * 300 + ";base64,",
])  # fmt: skip


@st.composite
def changed(draw, file: bytes) -> bytes:
    """A file cut, with bytes put over or between others, or with what does not belong to it."""
    data = bytearray(file)
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        more = draw(st.binary(min_size=1, max_size=6))
        how = draw(st.sampled_from(["cut", "over", "between", "out"]))
        if how == "cut":
            del data[at:]
        elif how == "over":
            data[at : at + len(more)] = more
        elif how == "between":
            data[at:at] = more
        else:
            del data[at : at + draw(st.integers(1, 40))]
    return bytes(data)


@st.composite
def urls(draw) -> str:
    """A data URL of one of FILES, its file, its base64 or its head changed."""
    file = draw(changed(draw(st.sampled_from(FILES))[1]))
    text = base64.b64encode(file).decode()
    at = draw(st.integers(0, len(text)))
    text = draw(
        st.just(text)
        | st.sampled_from([text[:at], f"{text[:at]}={text[at:]}", f"{text[:at]} {text[at:]}"])
        | st.text(st.characters(codec=None), max_size=3).map(lambda more: text[:at] + more)
    )
    return draw(st.just("data:image/png;base64,") | heads) + text


@pytest.fixture(scope="module")
def app():
    return make_direct()


def ask(app, url):
    parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "What?"}]
    body = {"messages": [{"role": "user", "content": parts}], "max_tokens": 2}
    return send(app, json.dumps(body).encode())


def url_of(file: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(file).decode()}"


def test_pictures_of_all_formats_and_modes_are_answered(app):
    assert len(FILES) > 30
    told = {name: ask(app, url_of(file)) for name, file in FILES}
    assert not {name: answer.body for name, answer in told.items() if answer.status != 200}


@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
@given(urls())
@example(url_of(claimed(2**31 - 1, 2**31 - 1)))
@example(url_of(claimed(0, 0)))
def test_a_picture_that_is_changed_anywhere_is_read_or_refused(app, url):
    answer = ask(app, url)
    assert answer.status == 200 or 400 <= answer.status < 500, answer.body
    assert answer.status == 200 or is_openais(answer.body)
