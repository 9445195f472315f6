"""What is too much, found before it is decoded."""

from dataclasses import dataclass

from dig_jax.inputs.picture_files import file_header
from dig_jax.serve.refusal import Refused

_PROGRAMS = ("EPS", "WMF")  # formats that Pillow hands to other programs, or to the system


@dataclass(frozen=True)
class Limits:
    """Of one request, and of all that are being read.

    body      bytes of a request
    bodies    bytes of all requests that are being read or prepared
    picture   bytes of a picture's file
    pixels    of a picture as its file holds it
    pictures  in a request
    letters   of all texts of a request: more cannot be as few tokens as any shape holds
    answers   n, of a request
    most      tokens of an answer
    """

    pictures: int
    letters: int
    answers: int
    most: int
    body: int = 64 << 20
    bodies: int = 512 << 20
    picture: int = 32 << 20
    pixels: int = 64 << 20


def check_picture(data: bytes, limits: Limits, param: str) -> None:
    """Raises Refused for a picture that is too large or none, by its header alone."""
    if len(data) > limits.picture:
        raise Refused(
            413,
            f"{param}: a picture of {len(data)} bytes is more than {limits.picture}; send it "
            f"smaller, or as JPEG",
            param=param,
            code="image_too_large",
        )
    try:
        kind, pixels = file_header(data)
        if kind in _PROGRAMS:
            raise ValueError("a format that holds programs")
    except ValueError as error:
        raise unreadable(error, param) from error
    if pixels > limits.pixels:
        raise Refused(
            413,
            f"{param}: a picture of {pixels} pixels is more than {limits.pixels}; scale it down",
            param=param,
            code="image_too_large",
        )


def unreadable(error: ValueError, param: str) -> Refused:
    return Refused(
        400,
        f"{param}: the picture cannot be read ({error}); send PNG or JPEG",
        param=param,
        code="invalid_image",
    )


def check_texts(letters: int, limits: Limits) -> None:
    if letters > limits.letters:
        raise Refused(
            400,
            f"messages: {letters} letters are more tokens than this server's longest prompt has, "
            f"for {limits.letters} letters at most; shorten the texts",
            param="messages",
            code="context_length_exceeded",
        )
