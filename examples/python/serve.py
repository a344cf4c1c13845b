"""The main job: serve a Llama-family checkpoint with libadcg.

    python examples/python/serve.py --model DIR [--capture upfront] [--temperature 0.8] ...

Requests of different lengths arrive over time. A step takes one token of every sequence that is decoding, and fills the
rest of its token budget with chunks of prompts; slots of finished requests are reused. Each step replays a captured
graph, and, unless --no-check, the same step runs in a second, eager exec with caches of its own: their logits must be
equal bit for bit, or the exit status is 1.
"""

from __future__ import annotations

import argparse
import io
import sys
import time
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import adcg
import numpy as np
from llama import Array, ConfigError, LlamaConfig, Model, Piece, Runner, load_weights
from tabulate import tabulate
from tqdm import tqdm

REPOSITORY = Path(__file__).resolve().parents[2]
DEFAULT_MODEL = REPOSITORY / "tests" / "data" / "models" / "tiny-go"
GOLDEN_CONTINUATION = 160  # bytes behind each prompt in tiny-go's golden.safetensors


# ---- Requests and their schedule ---------------------------------------------------------------------------------


@dataclass
class Request:
    """One prompt and what came of it."""

    number: int
    prompt: list[int]
    max_new: int
    arrival: int  # the step before which it arrives
    slot: int = -1
    cached: int = 0  # tokens in its cache slot
    written: list[int] = field(default_factory=list)
    started: int = -1
    finished: int = -1

    @property
    def pending(self) -> int:
        """Prompt tokens that no step has taken yet."""
        return max(0, len(self.prompt) - self.cached)


class Scheduler:
    """Decides what each step holds: a token of every decoding request first, then chunks of prompts, oldest first, up
    to ``budget`` tokens."""

    def __init__(self, requests: Iterable[Request], slots: int, budget: int) -> None:
        self.waiting = deque(sorted(requests, key=lambda request: request.arrival))
        self.free = deque(range(slots))
        self.running: list[Request] = []
        self.budget = budget
        self.now = 0

    @property
    def done(self) -> bool:
        return not self.waiting and not self.running

    def next_step(self) -> list[tuple[Request, Piece]]:
        """The pieces of the next step in batch order: prefill, extend, decode. Empty while nothing has arrived."""
        while self.waiting and self.waiting[0].arrival <= self.now and self.free:
            request = self.waiting.popleft()
            request.slot, request.started = self.free.popleft(), self.now
            self.running.append(request)
        self.now += 1
        decode = [
            (request, Piece(request.slot, request.cached, request.written[-1:], "decode"))
            for request in self.running
            if not request.pending
        ]
        prefill: list[tuple[Request, Piece]] = []
        extend: list[tuple[Request, Piece]] = []
        left = self.budget - len(decode)
        for request in self.running:
            if request.pending and left > 0:
                chunk = request.prompt[request.cached : request.cached + left]
                left -= len(chunk)
                # A prompt's first chunk has no history; the later ones extend it.
                kind, pieces = ("extend", extend) if request.cached else ("prefill", prefill)
                pieces.append((request, Piece(request.slot, request.cached, chunk, kind)))
        return prefill + extend + decode

    def advance(self, request: Request, piece: Piece, token: int | None, stop: bool) -> None:
        """Books a piece that has run; ``token`` is what the request writes next, None inside its prompt."""
        request.cached += len(piece.tokens)
        if token is not None and not stop:
            request.written.append(token)
        if stop or len(request.written) >= request.max_new:
            request.finished = self.now
            self.running.remove(request)
            self.free.append(request.slot)


class Sampler:
    """Greedy, or softmax sampling at a temperature. Each request draws from a generator of its own, so what it writes
    does not depend on its neighbours in the batch."""

    def __init__(self, temperature: float, seed: int, requests: int) -> None:
        self.temperature = temperature
        self.generators = [np.random.default_rng((seed, number)) for number in range(requests)]

    def __call__(self, request: Request, logits: Array) -> int:
        if self.temperature <= 0:
            return int(logits.argmax())
        scaled = logits.astype(np.float64) / self.temperature
        weights = np.exp(scaled - scaled.max())
        drawn = self.generators[request.number].random() * weights.sum()
        return min(int(np.searchsorted(np.cumsum(weights), drawn, side="right")), len(weights) - 1)


# ---- Text --------------------------------------------------------------------------------------------------------


class Text:
    """Between text and tokens: bytes for a vocabulary of 256, tokenizer.json where there is one, else bare ids."""

    def __init__(self, folder: Path, vocab_size: int) -> None:
        self.tokenizer: Any = None
        self.bytes = False
        if (folder / "tokenizer.json").is_file():
            try:
                from tokenizers import Tokenizer

                self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
            except ImportError:
                print("serve: tokenizer.json is there, the package tokenizers is not: printing ids", file=sys.stderr)
        elif vocab_size == 256:
            self.bytes = True

    @property
    def readable(self) -> bool:
        return self.bytes or self.tokenizer is not None

    def encode(self, text: bytes) -> list[int]:
        if self.tokenizer is not None:
            return list(self.tokenizer.encode(text.decode()).ids)
        return list(text)

    def decode(self, tokens: Sequence[int]) -> str:
        if self.tokenizer is not None:
            return str(self.tokenizer.decode(list(tokens)))
        if self.bytes:
            return bytes(tokens).decode("utf-8", "replace").replace("\0", "")
        return " ".join(map(str, tokens))


def make_prompts(args: argparse.Namespace, text: Text, config: LlamaConfig) -> list[list[int]]:
    """Prompt files if given; the golden prompts of the model (real Go source) if it carries them; else random ids."""
    if args.prompt:
        if not text.readable:
            raise ConfigError(f"--prompt: {args.model} has no tokenizer and its vocabulary is not bytes")
        return [text.encode(Path(file).read_bytes()) for file in args.prompt]
    golden = args.model / "golden.safetensors"
    if golden.is_file() and text.bytes:
        from safetensors import safe_open

        with safe_open(golden, "np") as tensors:
            names = sorted(name for name in tensors.keys() if name.startswith("tokens."))  # noqa: SIM118  no dict
            found = [tensors.get_tensor(name)[:-GOLDEN_CONTINUATION].tolist() for name in names]
        prompts = [prompt for prompt in found if prompt]
        if prompts:
            return prompts
    rng = np.random.default_rng(args.seed)
    return [rng.integers(0, config.vocab_size, int(n)).tolist() for n in rng.integers(8, 3 * args.budget, 8)]


def make_requests(args: argparse.Namespace, prompts: list[list[int]], max_len: int) -> list[Request]:
    """Requests of different lengths, a few steps apart."""
    rng = np.random.default_rng(args.seed)
    requests = []
    arrival = 0
    for number in range(args.requests):
        prompt = prompts[number % len(prompts)][: max_len - 1]
        room = max_len - len(prompt)
        wanted = int(rng.integers(max(1, args.max_new // 4), args.max_new + 1))
        requests.append(Request(number, prompt, min(wanted, room), arrival))
        arrival += int(rng.integers(0, 2 * args.gap + 1))
    return requests


# ---- The loop ----------------------------------------------------------------------------------------------------


@dataclass
class Tally:
    """What the run came to."""

    steps: Counter[tuple[str, int, int]] = field(default_factory=Counter)  # by mode and bucket
    tokens: Counter[tuple[str, int, int]] = field(default_factory=Counter)
    padded: Counter[tuple[str, int, int]] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    sizes: Counter[int] = field(default_factory=Counter)  # steps by their tokens
    seconds: float = 0.0  # in replays
    eager_seconds: float = 0.0  # in the same steps, eager
    timed_tokens: int = 0
    timed_steps: int = 0
    captures: int = 0
    capture_seconds: float = 0.0
    differing: int = 0  # steps whose logits differ from eager's

    def add(self, step: adcg.Step, tokens: int) -> None:
        key = (step.mode, step.bucket_tokens, step.bucket_seqs)
        self.steps[key] += 1
        self.tokens[key] += tokens
        self.padded[key] += step.padded_tokens
        self.reasons[step.reason] += 1
        self.sizes[tokens] += 1


def timed(runner: Runner, pieces: Sequence[Piece]) -> tuple[Array, adcg.Step, float]:
    start = time.perf_counter()
    logits, step = runner.step(pieces)
    return logits, step, time.perf_counter() - start


def serve(
    scheduler: Scheduler,
    runner: Runner,
    eager: Runner | None,
    sampler: Sampler,
    stop_tokens: Sequence[int],
    bar: Any,
) -> Tally:
    tally = Tally()
    captured = runner.exec.stats().captured_buckets
    while not scheduler.done:
        planned = scheduler.next_step()
        if not planned:
            continue  # nobody is here yet
        pieces = [piece for _, piece in planned]
        tokens = sum(len(piece.tokens) for piece in pieces)
        # Who goes first alternates: the second of the two finds the weights in the cache.
        if eager is not None and scheduler.now % 2:
            expected, _, eager_seconds = timed(eager, pieces)
        logits, step, seconds = timed(runner, pieces)
        if eager is not None and scheduler.now % 2 == 0:
            expected, _, eager_seconds = timed(eager, pieces)
        if eager is not None and logits.tobytes() != expected.tobytes():
            tally.differing += 1
        tally.add(step, tokens)
        now_captured = runner.exec.stats().captured_buckets
        if now_captured > captured:  # this step also captured its bucket: count its time apart
            tally.captures += now_captured - captured
            tally.capture_seconds += seconds
            captured = now_captured
        else:
            tally.seconds += seconds
            tally.eager_seconds += eager_seconds if eager is not None else 0.0
            tally.timed_tokens += tokens
            tally.timed_steps += 1
        for (request, piece), row in zip(planned, logits, strict=True):
            token = sampler(request, row) if request.cached + len(piece.tokens) >= len(request.prompt) else None
            stop = token is not None and token in stop_tokens
            scheduler.advance(request, piece, token, stop)
            if request.finished >= 0:
                bar.total -= request.max_new - len(request.written)  # it stopped early
        bar.set_postfix_str(f"{step.mode} {step.bucket_tokens}, {len(scheduler.running)} running", refresh=False)
        bar.update(tokens)
    return tally


# ---- The report --------------------------------------------------------------------------------------------------


def section(title: str, rows: list[list[Any]], headers: Sequence[str]) -> None:
    print(f"\n{title}")
    print(tabulate(rows, headers=headers, tablefmt="simple", intfmt=",", floatfmt=",.2f"))


def report(tally: Tally, runner: Runner, forecast: adcg.Forecast, checked: bool) -> None:
    rows: list[list[Any]] = []
    for mode, tokens, seqs in sorted(tally.steps):
        key = (mode, tokens, seqs)
        size = f"{tokens} tokens, {seqs} seqs" if mode != "eager" else f"{tokens} tokens, {seqs} seqs (as it came)"
        rows.append([mode, size, tally.steps[key], tally.tokens[key], tally.padded[key]])
    total = ["total", "", tally.steps.total(), tally.tokens.total(), tally.padded.total()]
    section("steps", [*rows, total], ["mode", "bucket", "steps", "tokens", "padded tokens"])

    explained = {
        "none": "none: one full graph",
        "mode": "mode: the exec's mode has nothing better",
        "support": "support: attention's capture support does not cover a mixed batch",
        "too_large": "too_large: larger than the largest bucket",
        "not_captured": "not_captured: no bucket captured for it",
        "capture_failed": "capture_failed: its bucket failed",
    }
    rows = [[explained.get(reason, reason), count] for reason, count in tally.reasons.most_common()]
    section("fallbacks", rows, ["why not one full graph", "steps"])

    stats = runner.exec.stats()
    bound = forecast.lower_bound_bytes
    rows = [
        ["arena", stats.arena_bytes, stats.arena_bytes / bound if bound else None],
        ["  peak-liveness bound", bound, 1.0],
        ["  sum over buckets", forecast.bucket_sum_bytes, forecast.bucket_sum_bytes / bound if bound else None],
        ["tapes", stats.tape_bytes, None],
        ["metadata", stats.metadata_bytes, None],
        ["total held now", stats.total_bytes, None],
        ["total forecast", forecast.total_bytes, None],
        ["staged copies", stats.staged_bytes, None],
    ]
    section("memory", rows, ["", "bytes", "x bound"])

    def speed(name: str, seconds: float) -> list[Any]:
        us = seconds / max(1, tally.timed_steps) * 1e6
        return [name, f"{tally.timed_tokens / seconds:,.0f}" if seconds else "-", us]

    rows = [speed("replay", tally.seconds)]
    if checked:
        rows.append(speed("eager", tally.eager_seconds))
        if tally.seconds:
            rows.append(["replay / eager", f"{tally.eager_seconds / tally.seconds:.2f}x", None])
    if tally.captures:
        rows.append([f"{tally.captures} sizes captured on first use", None, tally.capture_seconds * 1e6])
    section("speed", rows, ["", "tokens/s", "us a step"])


def print_requests(requests: Sequence[Request], text: Text) -> None:
    print("\nrequests")
    for r in requests:
        unit = "bytes" if text.bytes else "tokens"
        print(
            f"--- request {r.number}: prompt {len(r.prompt)} {unit}, wrote {len(r.written)}; arrived before step "
            f"{r.arrival}, slot {r.slot}, steps {r.started} to {r.finished}"
        )
        print(f"{text.decode(r.prompt)}«{text.decode(r.written)}»" if text.readable else text.decode(r.written))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Serve a Llama-family checkpoint with libadcg.")
    parser.add_argument("--model", type=Path, default=DEFAULT_MODEL, metavar="DIR", help="config.json and safetensors")
    parser.add_argument("--capture", choices=("lazy", "upfront"), default="lazy", help="when buckets are captured")
    parser.add_argument("--mode", default="full_and_piecewise", help="of the exec: none, piecewise, full, ...")
    parser.add_argument(
        "--buckets", metavar="N,N,...", help="token counts to capture for (default: quarters of the budget)"
    )
    parser.add_argument("--requests", type=int, default=12)
    parser.add_argument("--slots", type=int, default=4, help="cache slots, and sequences of one step")
    parser.add_argument("--budget", type=int, default=48, help="tokens of one step")
    parser.add_argument("--max-new", type=int, default=160, help="the most that a request writes")
    parser.add_argument("--max-len", type=int, default=0, help="positions of a slot; 0: the model's, at most 1024")
    parser.add_argument("--gap", type=int, default=12, help="mean steps between arrivals")
    parser.add_argument("--prompt", nargs="+", metavar="FILE", help="prompt files instead of the model's own")
    parser.add_argument("--temperature", type=float, default=0.0, help="0: greedy")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of activations and caches")
    parser.add_argument("--threads", type=int, default=0, help="of the host device's kernels; 0: one a core")
    parser.add_argument(
        "--histogram",
        type=Path,
        metavar="FILE",
        help="write how many steps had how many tokens (python -m adcg ladder)",
    )
    parser.add_argument("--no-check", action="store_true", help="leave out the eager exec")
    args = parser.parse_args(arguments)
    if not 0 < args.slots <= args.budget:
        parser.error("--slots: at least 1, and at most the --budget of tokens")
    try:
        quarters = [max(1, args.budget * i // 4) for i in range(1, 5)]
        args.buckets = [int(size) for size in args.buckets.split(",")] if args.buckets else quarters
    except ValueError:
        parser.error(f"--buckets: numbers and commas are meant: {args.buckets!r}")
    return args


def main(arguments: Sequence[str] | None = None) -> int:
    args = parse(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a model writes what it likes, a terminal may not show it
    try:
        config = LlamaConfig.from_dir(args.model)
        weights = load_weights(args.model, config)
        text = Text(args.model, config.vocab_size)
        prompts = make_prompts(args, text, config)
    except ConfigError as error:
        print(f"serve: {error}", file=sys.stderr)
        return 2
    max_len = args.max_len or min(config.max_position_embeddings, 1024)
    requests = make_requests(args, prompts, max_len)
    options: dict[str, Any] = {"mode": args.mode, "buckets": args.buckets}
    with adcg.Engine("host", threads=args.threads) as engine:
        shape = f"{config.num_hidden_layers} layers, hidden {config.hidden_size}"
        print(f"serve: {args.model}, {shape}, on {engine.device.description}")
        model = Model(
            engine,
            config,
            weights,
            max_tokens=args.budget,
            max_seqs=args.slots,
            max_len=max_len,
            logits="last",
            dtype=args.dtype,
        )
        with model.runner(**options) as runner:
            eager = None if args.no_check else model.runner(mode="none")
            if args.capture == "upfront":
                runner.exec.capture(progress=True)
            scheduler = Scheduler(requests, args.slots, args.budget)
            sampler = Sampler(args.temperature, args.seed, len(requests))
            # Every written token but the last is fed back in.
            total = sum(len(r.prompt) + r.max_new - 1 for r in requests)
            interval = 0.1 if sys.stderr.isatty() else 2.0
            with tqdm(total=total, desc="serve", unit="tok", file=sys.stderr, mininterval=interval) as bar:
                tally = serve(scheduler, runner, eager, sampler, config.eos_token_ids, bar)
            print_requests(requests, text)
            report(tally, runner, model.graph.forecast(**options), eager is not None)
            if args.histogram:
                rows = "".join(f"{tokens},{steps}\n" for tokens, steps in sorted(tally.sizes.items()))
                args.histogram.write_text("tokens,steps\n" + rows)
            if eager is not None:
                eager.exec.close()
                steps = tally.steps.total()
                same = "equal eager's bit for bit" if not tally.differing else "DIFFER from eager's"
                print(f"\ncheck: logits of {steps - tally.differing} of {steps} steps {same}")
    return 1 if tally.differing else 0


if __name__ == "__main__":
    raise SystemExit(main())
