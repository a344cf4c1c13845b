"""The graphs of public models: their weights against the published counts, their scratch against brute force, and that
the arena equals the lower bound (the library's own checker has accepted every plan that it gives out)."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

import adcg
import pytest
from plan_models import models, ops, policies
from plan_models.__main__ import even_ladder, vllm_ladder

CHECKPOINTS = models.checkpoints()


def graph(engine: adcg.Engine, entry: dict[str, Any], **options: Any) -> adcg.Graph:
    ops.register(engine, models.table_of(entry))
    return models.build(engine, entry, **options)


@pytest.mark.parametrize("name", CHECKPOINTS)
@pytest.mark.parametrize("fused", [False, True])
def test_weights_are_those_of_the_checkpoint(engine: adcg.Engine, name: str, fused: bool) -> None:
    """models.json has the count of transformers' own model; a projection that is missing or of a wrong shape shows."""
    entry = CHECKPOINTS[name]
    with graph(engine, entry, max_tokens=64, max_seqs=4, fused=fused) as g:
        assert models.parameters(g) == entry["parameters"]["total"]


# Between segments: an attention a layer; of recurrent layers, a convolution and a scan for each instead (Qwen3.5: 30
# of 40, Nemotron: 23 beside 6 of attention). Then the token gather, and the metadata of positions and of chunks.
DYNAMIC = {
    "Llama-3.1-8B": 32 + 2,
    "Llama-3.1-70B": 80 + 2,
    "Qwen3-30B-A3B": 48 + 2,
    "Qwen3.5-35B-A3B": 10 + 2 * 30 + 3,
    "Nemotron-3-Nano-30B-A3B": 6 + 2 * 23 + 2,
    "GLM-4.7-Flash": 47 + 2,
    "DeepSeek-V3 / DeepSeek-R1": 61 + 2,
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_the_arena_equals_the_bound(engine: adcg.Engine, name: str) -> None:
    with graph(engine, CHECKPOINTS[name], max_tokens=1024, max_seqs=32) as g:
        forecast = g.forecast(buckets=[64, 256, 1024])
        assert forecast.arena_bytes == forecast.lower_bound_bytes
        assert forecast.num_dynamic_ops == DYNAMIC[name]


def test_the_8b_model_needs_736_mib_at_8192_tokens(engine: adcg.Engine) -> None:
    """With fused products, at the end of a layer: residual 8192 x 4096, gate|up 8192 x 28672 and their product 8192 x
    14336 in bfloat16 are 64 + 448 + 224 MiB. Beside them lie index tensors of less than 0.1 MiB."""
    with graph(engine, CHECKPOINTS["Llama-3.1-8B"], max_tokens=8192, max_seqs=256, fused=True) as g:
        needed = g.forecast(buckets=[8192]).lower_bound_bytes
        assert 736 * 2**20 <= needed < 736.1 * 2**20


@pytest.mark.parametrize("name", ["Qwen3.5-35B-A3B", "Nemotron-3-Nano-30B-A3B", "GLM-4.7-Flash"])
def test_policies_see_the_plan_s_tensors(engine: adcg.Engine, name: str) -> None:
    """At the limits every scratch is what the library asked for, and what is live at most is the plan's bound but for
    staging."""
    with graph(engine, CHECKPOINTS[name], max_tokens=512, max_seqs=16) as g:
        plan = json.loads(g.plan("json", buckets=[64, 512]))
    program = policies.program(plan, models.table_of(CHECKPOINTS[name]))
    scratch = {t.name: t.size(512, 16) for t in program.tensors if t.name.endswith(", scratch")}
    assert scratch == {f"{n['name']}, scratch": n["workspace_bytes"] for n in plan["nodes"] if n["workspace_bytes"]}
    assert scratch
    blocks = {b["name"]: b["bytes"] for b in plan["blocks"] if b["kind"] == "activation"}
    assert {t.name: t.size(512, 16) for t in program.tensors if t.name not in scratch} == blocks
    most = policies.peak(program.tensors, 512, 16)
    assert plan["lower_bound_bytes"] - plan["staging_bytes"] <= most <= plan["lower_bound_bytes"]


def shares(total: int, parts: int) -> Iterator[tuple[int, ...]]:
    """Every way to share ``total`` out among ``parts``."""
    return (s for s in itertools.product(range(total + 1), repeat=parts) if sum(s) == total)


def test_moe_rows_are_the_most_of_any_routing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops, "MOE_TILE", 4)
    for assignments, experts in itertools.product(range(10), range(1, 5)):
        most = max(sum(-(-rows // 4) * 4 for rows in share) for share in shares(assignments, experts))
        assert ops.moe_rows(assignments, experts) == most, (assignments, experts)


def test_max_chunks_bound_every_batch() -> None:
    """Logical chunks: those of the tokens in a row, and one more for each start behind the first that is not at a
    chunk's begin; and chunks that begin anew with each sequence, as the delta rule's do."""
    chunk = 4
    for tokens, seqs in itertools.product(range(1, 10), range(1, 5)):
        logical = anew = 0
        for lengths in shares(tokens, seqs):
            lengths = tuple(n for n in lengths if n)
            starts = list(itertools.accumulate(lengths))[:-1]
            logical = max(logical, -(-tokens // chunk) + sum(start % chunk != 0 for start in starts))
            anew = max(anew, sum(-(-n // chunk) for n in lengths))
        assert max(logical, anew) <= ops.max_chunks(chunk, tokens, seqs), (tokens, seqs)
        if seqs == 2 and tokens > 1:
            assert logical == ops.max_chunks(chunk, tokens, seqs)  # one start that is not at a chunk's begin is there


def test_ladders(engine: adcg.Engine) -> None:
    """The even one is the library's own list. vLLM documents 51 sizes to 512: 1, 2, 4, 31 in steps of 8, 17 of 16."""
    entry = CHECKPOINTS["Llama-3.1-8B"]
    with graph(engine, entry, max_tokens=1000, max_seqs=4) as g:
        assert json.loads(g.plan("json"))["buckets"] == even_ladder(1000)
    sizes = vllm_ladder(512)
    assert len(sizes) == 3 + 31 + 17
    assert sizes[:5] == [1, 2, 4, 8, 16] and sizes[33:36] == [248, 256, 272] and sizes[-1] == 512
    assert vllm_ladder(8192)[-2:] == [8176, 8192]
