"""The estimate of hours and money is the arithmetic that it says it is."""

import dataclasses
import re

import pytest

from dig_jax.model.sizes import released
from tpu import cost, slices

WORK = cost.Work(pairs=4800, group=8, length=900, longest=2048, prompt=1536, step=16)
LINE = "--slice v5e-16 --model 8B --pairs 4800 --group 8 --length 900"


def cells(capsys, line: str) -> list[list[str]]:
    """The table's rows of numbers."""
    assert cost.main(line.split()) == 0
    out = capsys.readouterr().out
    assert out.startswith("ESTIMATE")
    rows = [line.split("|")[1:-1] for line in out.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows[2:]]


def test_the_8b_has_the_parameters_counted_by_hand():
    width, mlp, heads = 4096, 12288, 128
    attention = width * (32 + 8 + 8) * heads + 32 * heads * width
    block = attention + 3 * width * mlp + 2 * width + 2 * heads  # norms; of queries and keys
    assert cost.decoder_parameters(released("8b")) == 36 * block + 151936 * width
    assert cost.cache_bytes(released("8b").text) == 147_456


def test_a_token_takes_the_time_to_read_weights_and_caches_once():
    """Two rows of eight chips: 8 pairs each, 64 answers, their caches doubling from 256 tokens."""
    room = (256 * 256 + 256 * 512 + 512 * 1024 + 1024 * 2048) / 2048  # in the mean over steps
    cached = 8 * (1536 + 8 * room)
    read = 2 * cost.decoder_parameters(released("8b")) + cached * 147_456
    seconds = cost.token_seconds(released("8b"), slices.find("v5e-16"), WORK)
    assert seconds == pytest.approx(read / (8 * 819e9))
    assert 0.0045 < seconds < 0.0047


def test_four_times_the_chips_and_pairs_a_step_take_a_quarter_of_the_hours():
    small = cost.hours(released("8b"), slices.find("v5e-16"), WORK)
    wide = dataclasses.replace(WORK, step=64)
    large = cost.hours(released("8b"), slices.find("v5e-64"), wide)
    for part in ("rollout", "reference", "update"):
        assert getattr(small, part) == pytest.approx(4 * getattr(large, part))


def test_money_is_chip_hours_times_the_price_and_is_left_out_without_one(capsys):
    (row,) = cells(capsys, f"{LINE} --price 10")
    assert int(row[-1]) == pytest.approx(10 * int(row[-2]), abs=5)
    assert float(row[-3]) * 16 == pytest.approx(int(row[-2]), abs=0.6)
    (row,) = cells(capsys, LINE)
    assert row[-1] == ""


def test_a_chip_is_paid_for_once_however_many_devices_it_has():
    assert cost.chips(slices.find("tpu7x-8")) == 4
    assert cost.chips(slices.find("v5p-8")) == 4
    assert cost.chips(slices.find("8xh100")) == 8


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("--price 0", r"--price=0.0 is not above 0"),
        ("--step 20", r"--step=20 is not a multiple of the 16 devices of v5e-16; use 16"),
        ("--longest 800", r"--longest=800 is below the mean length=900"),
        ("--prompt 0", r"prompt=0 is below 1"),
        ("--model 9B", r"model size '9b' is not released"),
        ("--slice v5e-17", r"slice 'v5e-17' is not known; nearest: v5e-"),
    ],
)
def test_what_cannot_be_is_refused_by_name(more, message):
    with pytest.raises(SystemExit, match=message):
        cost.main([*LINE.split(), *more.split()])


@pytest.mark.parametrize(
    ("more", "advice", "followed"),
    [
        ("--step 20", r"use (\d+)$", "--step {0}"),
        ("--longest 800", r"(raise) it", "--longest 900"),
        ("--model 9B", r"use one of (\w+)", "--model {0}"),
        ("--slice v5e-17", r"nearest: ([\w-]+)", "--slice {0}"),
    ],
)
def test_what_a_refusal_advises_is_priced(more, advice, followed, capsys):
    with pytest.raises(SystemExit) as caught:
        cost.main([*LINE.split(), *more.split()])
    advised = re.search(advice, str(caught.value))
    assert not cost.main([*LINE.split(), *followed.format(advised[1]).split()])
    assert capsys.readouterr().out
