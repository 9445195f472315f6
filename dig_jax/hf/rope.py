"""How a config.json turns queries and keys: both spellings, all places, no contradiction.

Transformers 5 lets `rope_scaling` replace `rope_parameters` whole, 4.57 reads `rope_scaling` alone
and takes the kind of rotation from `rope_type` only, 5 from the older `type` as well. So what two
places say differently, or one of them leaves out, would be another model in one of the releases.
"""

from dig_jax.common.json_files import Fields, shown

VISION_THETA = 10000  # of the tower; HF has it in the code
_PLACES = ("rope_parameters", "rope_scaling")


def text_rope(text: Fields) -> tuple[float, tuple[int, int, int]]:
    """theta and mrope_section of a text_config.

    Raises ValueError for a rotation that is not computed here (yarn, linear, dynamic ...), for
    two values of one setting, and for a missing one: HF's silent defaults differ.
    """
    given = sections(text, kinds=("default",))
    for place in given:
        place.only("mrope_interleaved", True, default=True)
    theta = [f.number("rope_theta") for f in (*given, text) if f.has("rope_theta")]
    winner = [f.has("rope_theta") for f in (*given[-1:], text)]
    if not any(winner):
        raise ValueError(
            f"{text.where} has no rope_theta, neither beside nor in {_named(given)}, where "
            f"transformers looks; Qwen3-VL's is 5000000"
        )
    section = [f.counts("mrope_section", least=0) for f in given if f.has("mrope_section")]
    if not given or len(section) < len(given):
        raise ValueError(
            f"{text.where} has no mrope_section in {_named(given)}; Qwen3-VL's is [24, 20, 20]"
        )
    for name, values in (("rope_theta", theta), ("mrope_section", section)):
        _agree(text, name, values)
    if len(section[0]) != 3:
        raise ValueError(f"{text.where}: mrope_section={shown(section[0])} is not 3 numbers")
    return theta[0], section[0]


def check_vision_rope(vision: Fields) -> None:
    """Raises ValueError unless the tower turns as HF's code does by itself."""
    for place in (*sections(vision, kinds=("axial", "default")), vision):
        place.only("rope_theta", VISION_THETA, default=VISION_THETA)


def sections(settings: Fields, *, kinds: tuple[str, ...]) -> list[Fields]:
    """The places that say something, the one that wins last; ValueError for another rotation."""
    given = [settings.section(name, optional=True) for name in _PLACES]
    given = [place for place in given if place.values]
    for place in given:
        spelled = [place.get(name) for name in ("rope_type", "type") if place.has(name)]
        for kind in spelled:
            if kind not in kinds:
                raise ValueError(
                    f"{place.where}: rope_type={shown(kind)}; only {kinds[0]!r} is implemented"
                )
        _agree(place, "rope_type", spelled)
    for place in (*given, settings):
        place.only("partial_rotary_factor", 1, default=1)
    return given


def _agree(place: Fields, name: str, values: list) -> None:
    if any(value != values[0] for value in values):
        raise ValueError(
            f"{place.where} gives two values of {name}: {shown(values)}; keep the one that the "
            f"weights were trained with"
        )


def _named(given: list[Fields]) -> str:
    return " and ".join(place.where.rpartition(" ")[2] for place in given) or " or ".join(_PLACES)
