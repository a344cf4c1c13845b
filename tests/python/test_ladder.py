"""Ladders from Python, and ``python -m adcg ladder``. What is expected comes by hand, or from trying all ladders."""

from __future__ import annotations

import itertools
import json
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import adcg
import pytest
from adcg.cli_ladder import parse

Fails = Callable[..., adcg.AdcgError]
SMALL = {8: 1, 1: 10, 2: 4}


def padding(histogram: dict[int, int], buckets: list[int]) -> tuple[int, int]:
    """Padded tokens and eager steps, one kind of step after the other."""
    padded = eager = 0
    for tokens, steps in histogram.items():
        held = [bucket for bucket in buckets if bucket >= tokens]
        if held:
            padded += (min(held) - tokens) * steps
        else:
            eager += steps
    return padded, eager


def test_chosen_by_hand() -> None:
    assert adcg.choose_ladder(SMALL, max_buckets=2) == [2, 8]  # [1, 8] pads 4 * 6, [2, 8] pads 10 * 1
    assert adcg.choose_ladder(SMALL) == [1, 2, 8]
    assert adcg.choose_ladder(SMALL, max_tokens=4, max_buckets=1) == [2]
    price = adcg.LadderBudget(bytes_per_bucket=5, bytes_per_token=2, max_bytes=28)
    assert adcg.choose_ladder(SMALL, price) == [1, 8]
    assert adcg.choose_ladder(SMALL, price, max_bytes=30) == [2, 8]
    assert adcg.choose_ladder(SMALL, price, max_bytes=10, allow_eager=True) == [2]


def test_every_way_to_say_a_histogram() -> None:
    sizes = [8] + [1] * 10 + [2] * 4
    for histogram in (SMALL, Counter(sizes), sizes, tuple(sizes), iter(sizes)):
        assert adcg.choose_ladder(histogram, max_buckets=2) == [2, 8]
    np = pytest.importorskip("numpy")
    assert adcg.choose_ladder(np.array(sizes), max_buckets=2) == [2, 8]


def test_chosen_is_the_best_of_all() -> None:
    rng = random.Random(5)
    for _ in range(150):
        histogram = {rng.randint(1, 60): rng.randint(1, 30) for _ in range(rng.randint(1, 8))}
        budget = adcg.LadderBudget(
            max_buckets=rng.randint(0, 4), bytes_per_bucket=rng.randint(0, 20), bytes_per_token=rng.randint(0, 3)
        )
        sizes = sorted(histogram)
        every = [set_ for n in range(1, len(sizes) + 1) for set_ in itertools.combinations(sizes, n)]
        limit = rng.randint(1, 300)

        def cost(ladder: tuple[int, ...], budget: adcg.LadderBudget = budget) -> int:
            return sum(budget.bytes_per_bucket + budget.bytes_per_token * bucket for bucket in ladder)

        allowed = [
            ladder
            for ladder in every
            if ladder[-1] == sizes[-1] and len(ladder) <= (budget.max_buckets or 99) and cost(ladder) <= limit
        ]
        if not allowed:
            with pytest.raises(adcg.AdcgError, match="max_bytes"):
                adcg.choose_ladder(histogram, budget, max_bytes=limit)
            continue
        want = min(allowed, key=lambda ladder: (padding(histogram, list(ladder))[0], len(ladder), ladder))
        got = adcg.choose_ladder(histogram, budget, max_bytes=limit)
        assert got == list(want)
        told = adcg.ladder_cost(histogram, got, budget)
        assert (told.padded_tokens, told.eager_steps) == padding(histogram, got)
        assert told.bytes == cost(want)


def test_cost() -> None:
    cost = adcg.ladder_cost(SMALL, [6, 1, 4, 4], bytes_per_bucket=100, bytes_per_token=10, ns_per_token=3)
    assert (cost.steps, cost.real_tokens, cost.padded_tokens, cost.eager_steps, cost.eager_tokens) == (15, 26, 8, 1, 8)
    assert (cost.bytes, cost.ns) == (410, 33)
    assert cost.padded_share == 8 / 26
    assert cost.buckets[1] == adcg.LadderBucket(tokens=4, steps=4, real_tokens=8, padded_tokens=8, bytes=140, ns=12)
    assert [bucket.tokens for bucket in cost.buckets] == [1, 4, 6]
    nothing = adcg.ladder_cost(SMALL, [])
    assert (nothing.eager_steps, nothing.padded_share, nothing.buckets) == (15, 0.0, ())


def test_named(engine: adcg.Engine) -> None:
    assert adcg.named_ladder("vllm", 8192, max_seqs=8) == [1, 2, 4, 8, 16]
    assert adcg.named_ladder("sglang", 8192, max_seqs=10) == [1, 2, 4, 8, 10]
    assert adcg.named_ladder("sglang_piecewise", 50) == [*range(4, 33, 4), 48]
    assert adcg.named_ladder("sglang_piecewise", 2) == []
    for name in adcg.LADDERS:
        assert adcg.named_ladder(name, 100)
    # ours is what an exec without a list has
    with engine.graph(max_tokens=200, max_seqs=2) as g:
        x = g.input("x", "float32", [g.tokens])
        g.output("y", g.add(x, x))
        with g.compile(mode="piecewise") as exec_:
            assert adcg.named_ladder("adcg", 200) == sorted(bucket.tokens for bucket in exec_.buckets())


def test_names_are_the_librarys(fails: Fails) -> None:
    error = fails("ERR_NOT_FOUND", ("`vlm`", "use one of"), adcg.named_ladder, "vlm", 8)
    assert set(error.message.split("use one of ")[1].replace("`", "").split(", ")) == set(adcg.LADDERS)


@pytest.mark.parametrize(
    ("words", "call"),
    [
        ("empty", lambda: adcg.choose_ladder({})),
        ("empty", lambda: adcg.ladder_cost([], [4])),
        ("tokens: 0", lambda: adcg.choose_ladder({0: 1})),
        ("steps: -1", lambda: adcg.choose_ladder({3: -1})),
        ("not an integer: 1.5", lambda: adcg.choose_ladder({1.5: 1})),  # type: ignore[dict-item]
        ("not an integer: 'a'", lambda: adcg.choose_ladder(["a"])),  # type: ignore[list-item]
        ("neither a mapping nor sizes: str", lambda: adcg.choose_ladder("12")),  # type: ignore[arg-type]
        ("neither a mapping nor sizes: int", lambda: adcg.choose_ladder(12)),  # type: ignore[arg-type]
        ("does not fit int64", lambda: adcg.choose_ladder({1: 1 << 63})),
        ("max_bucket: no such limit", lambda: adcg.choose_ladder(SMALL, max_bucket=3)),
        ("budget.max_buckets: -1", lambda: adcg.choose_ladder(SMALL, max_buckets=-1)),
        ("budget.max_buckets: does not fit int32", lambda: adcg.choose_ladder(SMALL, max_buckets=1 << 31)),
        ("budget.max_ns: not an integer: 0.5", lambda: adcg.choose_ladder(SMALL, max_ns=0.5)),  # type: ignore[arg-type]
        ("max_tokens: 0", lambda: adcg.named_ladder("vllm", 0)),
        ("max_seqs: does not fit", lambda: adcg.named_ladder("vllm", 1, 1 << 70)),
        ("not a name", lambda: adcg.named_ladder("vllm\0", 1)),
        ("buckets[0]: -4", lambda: adcg.ladder_cost(SMALL, [-4])),
    ],
)
def test_bad_input(fails: Fails, words: str, call: Callable[[], Any]) -> None:
    fails("ERR_ARGUMENT", words, call)


def test_histogram_texts() -> None:
    want = {1: 900, 37: 40, 512: 3}
    for text in (
        "1,900\n37,40\n512,3\n",
        "tokens,steps\n\n# of Monday\n 512 , 3\n37,40\n1,450\n1,450",
        '{"1": 900, "37": 40, "512": 3}',
        "[[1, 900], [37, 40], [512, 3]]",
        json.dumps([1] * 900 + [37] * 40 + [512] * 3),
    ):
        assert parse(text) == want
    assert parse("7\n7\n9\n") == {7: 2, 9: 1}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1,2\nx,3", "f:2"),
        ("1,2,3", "['1', '2', '3']"),
        ("1.5,2", "f:1"),
        ("[[1, 2.5]]", "f[0]"),
        ("[null]", "f[0]"),
        ("[[]]", "f[0]"),
        ('{"a": 1}', "f[0]"),
        ("[1, 2", "JSON"),
        ("3,5\n3,-4", "f:2: steps: -4"),
    ],
)
def test_bad_histogram_texts(fails: Fails, text: str, words: str) -> None:
    fails("ERR_ARGUMENT", words, parse, text, "f")


def cli(environment: dict[str, str], *arguments: str, stdin: str = "", code: int = 0) -> tuple[str, str]:
    argv = [sys.executable, "-m", "adcg", "ladder", *arguments]
    done = subprocess.run(argv, env=environment, input=stdin, capture_output=True, text=True, timeout=60)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout, done.stderr


def test_command(environment: dict[str, str], tmp_path: Path) -> None:
    text = "1,10\n2,4\n8,1\n"
    out, _ = cli(environment, "-", "--max-buckets", "2", "--bytes-per-bucket", "50", "--max-seqs", "2", stdin=text)
    rows = {line.split()[0]: " ".join(line.split()[1:]) for line in out.splitlines() if line}
    assert out.startswith("15 steps of 3 sizes up to 8, 26 tokens\n")
    # buckets, largest, padded, of run, best of as many, eager steps, bytes
    assert rows["chosen"] == "2 8 10 27.78 % 10 0 100"
    assert rows["adcg"] == "1 8 94 78.33 % 94 0 50"
    assert rows["vllm"] == "3 4 0 0.00 % 0 1 150"
    assert rows["sglang_piecewise"] == "2 8 38 59.38 % 10 0 100"
    assert rows["chosen:"] == "2,8"
    file = tmp_path / "steps.json"
    file.write_text('{"1": 10, "2": 4, "8": 1}')
    out, _ = cli(environment, str(file), "--max-buckets", "2", "--format", "json")
    told = json.loads(out)
    assert told["chosen"]["ladder"] == [2, 8] and told["chosen"]["padded_tokens"] == 10
    assert set(told) == {"chosen", *adcg.LADDERS}


def test_command_says_what_is_wrong(environment: dict[str, str], tmp_path: Path) -> None:
    for arguments, stdin, word in (
        (["-"], "1,2\noops\n", "standard input:2"),
        (["-"], "", "empty"),
        ([str(tmp_path / "none.csv")], "", "none.csv"),
        (["-", "--max-tokens", "-3"], "1,2", "max_tokens: -3"),
        (["-", "--max-bytes", "5", "--bytes-per-bucket", "9"], "1,2", "max_bytes: 5"),
        (["-", "--max-seqs", "0"], "1,2", "max_seqs: 0"),
    ):
        out, err = cli(environment, *arguments, stdin=stdin, code=1)
        assert out == "" and err.startswith("adcg ladder: ") and word in err
