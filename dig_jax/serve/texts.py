"""Tokens as texts, one at a time: thoughts apart from words, an end where a stop text comes.

What has been given out is never taken back, so whatever may still turn out to be a stop text, a
tag or a part of a letter waits. All at once or token by token gives the same texts.
"""

import codecs
from collections.abc import Sequence
from functools import cache

from dig_jax.inputs.processor import Processor

_OPEN, _CLOSE = "<think>", "</think>"


class Writing:
    """One answer as its tokens come.

    stops     ids that end an answer: the model's eos_tokens
    texts     stop texts, of what comes behind a thought
    thinking  the prompt has opened a thought

    `take` and `finish` return what is new: (thought, words).
    """

    def __init__(
        self,
        processor: Processor,
        stops: Sequence[int],
        texts: Sequence[str] = (),
        *,
        thinking: bool = False,
    ):
        self.processor, self.stops, self.texts = processor, frozenset(stops), texts
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.part = "thought" if thinking else "start"
        self.held, self.fresh = "", True  # not given out yet; nothing of this part has been
        self.behind, self.stopped = False, False  # behind a thought; a stop text has come

    def take(self, token: int) -> tuple[str, str]:
        if token in self.stops or self.stopped:
            return "", ""
        self.held += self._letters(token)
        return self._given()

    def finish(self) -> tuple[str, str]:
        """What was held back, where the answer has ended."""
        if self.stopped:
            return "", ""
        self.held += self.decoder.decode(b"", final=True)
        thought, words = self._given()
        rest, self.held = self.held, ""
        if self.part == "thought":
            return thought + self._unspaced(rest.rstrip()), words
        return thought, words + rest

    def _letters(self, token: int) -> str:
        written = token_bytes(self.processor, token)
        if written is None:  # as `decode_answers` shows it
            return self.decoder.decode(b"", final=True) + f"<|{token}|>"
        return self.decoder.decode(written)

    def _given(self) -> tuple[str, str]:
        thought = ""
        if self.part == "start":
            self._begin()
        if self.part == "thought":
            thought = self._thought()
        return thought, self._words() if self.part == "words" else ""

    def _begin(self) -> None:
        """Whether an answer opens a thought by itself."""
        bare = self.held.lstrip()
        if bare.startswith(_OPEN):
            self.part, self.held = "thought", bare[len(_OPEN) :]
        elif not _OPEN.startswith(bare):
            self.part = "words"

    def _thought(self) -> str:
        at = self.held.find(_CLOSE)
        if at >= 0:
            before, self.held = self.held[:at].rstrip(), self.held[at + len(_CLOSE) :]
            given = self._unspaced(before)
            self.part, self.fresh, self.behind = "words", True, True
            return given
        kept = len(self.held) - _overlap(self.held, (_CLOSE,))
        kept = len(self.held[:kept].rstrip())
        given, self.held = self.held[:kept], self.held[kept:]
        return self._unspaced(given)

    def _words(self) -> str:
        if self.behind:
            self.held = self._unspaced(self.held)
        found = [at for at in map(self.held.find, self.texts) if at >= 0]
        if found:
            given, self.held, self.stopped = self.held[: min(found)], "", True
            return given
        kept = len(self.held) - _overlap(self.held, self.texts)
        given, self.held = self.held[:kept], self.held[kept:]
        self.fresh = self.fresh and not given
        return given

    def _unspaced(self, text: str) -> str:
        """Without the blank lines that a part begins with."""
        if self.fresh:
            text = text.lstrip()
            self.fresh = not text
        return text


def _overlap(text: str, ends: Sequence[str]) -> int:
    """Letters at the end of a text that may be the beginning of one of `ends`."""
    whole = (n for end in ends for n in range(1, len(end)) if text.endswith(end[:n]))
    return max(whole, default=0)


def token_bytes(processor: Processor, token: int) -> bytes | None:
    """What a token writes; None for an id that the tokenizer does not know."""
    written = processor.tokenizer.convert_ids_to_tokens(int(token))
    if written is None:
        return None
    table = _byte_of()
    if all(letter in table for letter in written):
        return bytes(table[letter] for letter in written)
    return written.encode()


@cache
def _byte_of() -> dict[str, int]:
    """Letters by which a byte-level vocabulary writes bytes: printable ones as they are."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(b): b for b in plain} | {chr(256 + n): b for n, b in enumerate(others)}
