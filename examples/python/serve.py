"""The main job: serve a checkpoint of any of the families with libadcg.

    python examples/python/serve.py --model DIR [--capture upfront] [--temperature 0.8] ...

Requests of different lengths arrive over time. A step takes one token of every sequence that is decoding, and fills the
rest of its token budget with chunks of prompts; slots of finished requests are reused. Each step replays a captured
graph, and, unless --no-check, the same step runs in a second, eager exec with states of its own: their logits must be
equal bit for bit. Where the model carries golden sequences and nothing is sampled, what is written must be theirs. If
not, the exit status is 1.
"""

from __future__ import annotations

import argparse
import io
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import adcg
import numpy as np
from checkpoint import Array
from config import ConfigError
from families import load_config
from network import Config
from report import Tally, print_requests, report
from runner import Model, Piece, Runner, load_weights, prompt_length
from schedule import Request, Sampler, Scheduler
from tqdm import tqdm

REPOSITORY = Path(__file__).resolve().parents[2]
DEFAULT_MODEL = REPOSITORY / "tests" / "data" / "models" / "tiny-go"


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


Prompt = tuple[list[int], list[int]]  # tokens, and what must follow them if it is known


def make_prompts(args: argparse.Namespace, text: Text, config: Config) -> list[Prompt]:
    """Prompt files if given; the golden prompts of the model (real Go source) if it carries them; else random ids."""
    if args.prompt:
        if not text.readable:
            raise ConfigError(f"--prompt: {args.model} has no tokenizer and its vocabulary is not bytes")
        return [(text.encode(Path(file).read_bytes()), []) for file in args.prompt]
    golden = args.model / "golden.safetensors"
    if golden.is_file() and text.bytes:
        from safetensors import safe_open

        prompts: list[Prompt] = []
        with safe_open(golden, "np") as tensors:
            for name in sorted(name for name in tensors.keys() if name.startswith("tokens.")):  # noqa: SIM118  no dict
                tokens = tensors.get_tensor(name)
                start = prompt_length(tokens, tensors.get_tensor(name.replace("tokens", "logits")))
                prompts.append((tokens[:start].tolist(), tokens[start:].tolist()))
        return prompts
    rng = np.random.default_rng(args.seed)
    lengths = rng.integers(8, 3 * args.budget, 8)
    return [(rng.integers(0, config.vocab_size, int(n)).tolist(), []) for n in lengths]


def make_requests(args: argparse.Namespace, prompts: list[Prompt], max_len: int) -> list[Request]:
    """Requests of different lengths, a few steps apart."""
    rng = np.random.default_rng(args.seed)
    requests = []
    arrival = 0
    for number in range(args.requests):
        prompt, expected = prompts[number % len(prompts)]
        if len(prompt) >= max_len:
            prompt, expected = prompt[: max_len - 1], []
        room = max_len - len(prompt)
        wanted = int(rng.integers(max(1, args.max_new // 4), args.max_new + 1))
        requests.append(Request(number, prompt, min(wanted, room), arrival, expected))
        arrival += int(rng.integers(0, 2 * args.gap + 1))
    return requests


# ---- The loop ----------------------------------------------------------------------------------------------------


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


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Serve a checkpoint of any of the model families with libadcg.")
    parser.add_argument("--model", type=Path, default=DEFAULT_MODEL, metavar="DIR", help="config.json and safetensors")
    parser.add_argument("--device", default="host", help="host, or cuda:0 and so on")
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
        config = load_config(args.model)
        weights = load_weights(args.model, config)
        text = Text(args.model, config.vocab_size)
        prompts = make_prompts(args, text, config)
    except ConfigError as error:
        print(f"serve: {error}", file=sys.stderr)
        return 2
    max_len = args.max_len or min(config.max_position_embeddings, 1024)
    requests = make_requests(args, prompts, max_len)
    try:
        return run(args, config, weights, text, requests, max_len)
    except adcg.AdcgError as error:
        print(f"serve: {error}", file=sys.stderr)
        return 2


def run(
    args: argparse.Namespace,
    config: Config,
    weights: dict[str, Array],
    text: Text,
    requests: list[Request],
    max_len: int,
) -> int:
    options: dict[str, Any] = {"mode": args.mode, "buckets": args.buckets}
    if args.device != "host" and not args.no_check:
        options["batch_invariant"] = True  # so that the eager exec, which pads nothing, has the same bits
    with adcg.Engine(args.device, threads=args.threads) as engine:
        shape = f"{config.num_hidden_layers} layers, hidden {config.hidden_size}"
        print(f"serve: {args.model}, {type(config).family}, {shape}, on {engine.device.description}")
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
            eager = None if args.no_check else model.runner(**{**options, "mode": "none"})
            if args.capture == "upfront":
                runner.exec.capture(progress=True)
            scheduler = Scheduler(requests, args.slots, args.budget)
            sampler = Sampler(args.temperature, args.seed, len(requests))
            # Every written token but the last is fed back in.
            total = sum(len(r.prompt) + r.max_new - 1 for r in requests)
            interval = 0.1 if sys.stderr.isatty() else 2.0
            with tqdm(total=total, desc="serve", unit="tok", file=sys.stderr, mininterval=interval) as bar:
                tally = serve(scheduler, runner, eager, sampler, config.eos_token_ids, bar)
            print_requests(requests, text.decode, text.readable, "bytes" if text.bytes else "tokens")
            report(tally, runner, model.graph.forecast(**options), eager is not None)
            if args.histogram:
                rows = "".join(f"{tokens},{steps}\n" for tokens, steps in sorted(tally.sizes.items()))
                args.histogram.write_text("tokens,steps\n" + rows)
            if eager is not None:
                eager.exec.close()
                steps = tally.steps.total()
                same = "equal eager's bit for bit" if not tally.differing else "DIFFER from eager's"
                print(f"\ncheck: logits of {steps - tally.differing} of {steps} steps {same}")
    # Golden sequences are greedy, in float32, and may end before the request does.
    known = [r for r in requests if r.expected] if args.temperature <= 0 and args.dtype == "float32" else []
    right = sum(all(map(int.__eq__, r.written, r.expected)) for r in known)
    if known:
        print(f"check: {right} of {len(known)} requests wrote what golden.safetensors has")
    return 1 if tally.differing or right < len(known) else 0


if __name__ == "__main__":
    raise SystemExit(main())
