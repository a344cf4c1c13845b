"""config.json of a checkpoint in the Hugging Face format: every option is used, known to change nothing, or refused.

    options = Options.from_dir(folder)
    hidden = options.whole("hidden_size")
    rope = Rope.read(options, max_positions)
    options.finish()                       # names an option that nobody asked for
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, overload

T = TypeVar("T")


class ConfigError(ValueError):
    """A checkpoint that cannot be reproduced exactly; the message names the option or the tensor."""


# What a config says of files, training, tokens and generation, and what changes no logit of a forward pass.
INERT = frozenset((
    "_attn_implementation", "_commit_hash", "_name_or_path", "architectures", "attention_dropout", "auto_map",
    "bos_token_id", "chunk_size_feed_forward", "classifier_dropout", "decoder_start_token_id", "embd_pdrop",
    "finetuning_task", "hidden_dropout", "id2label", "initializer_range", "is_encoder_decoder", "label2id",
    "language_model_only", "model_type", "output_attentions", "output_hidden_states", "output_router_logits",
    "pad_token_id", "problem_type", "resid_pdrop", "return_dict", "router_aux_loss_coef", "sep_token_id",
    "task_specific_params", "tokenizer_class", "torchscript", "transformers.js_config", "transformers_version",
    "use_cache",
))


class Options:
    """The options of one config, each taken by name. A missing one without a default, one of the wrong kind, and in
    ``finish`` one that nobody took: each raises ConfigError with its name."""

    def __init__(self, raw: Mapping[str, Any], prefix: str = "") -> None:
        self._raw, self._prefix, self._taken = dict(raw), prefix, set(INERT)

    @staticmethod
    def from_dir(folder: str | Path) -> Options:
        """Reads config.json; raises ConfigError, which begins with its path."""
        path = Path(folder) / "config.json"
        try:
            raw = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path}: {error}") from error
        if not isinstance(raw, dict):
            raise ConfigError(f"{path}: an object is meant: {type(raw).__name__}")
        return Options(raw)

    def take(self, name: str, default: Any = None) -> Any:
        """The option's value; ``default`` where it is missing or null."""
        self._taken.add(name)
        value = self._raw.get(name)
        if isinstance(value, dict) and set(value) == {"__float__"}:  # how transformers writes infinity
            value = float(value["__float__"])
        return default if value is None else value

    def _typed(self, name: str, default: T | None, kinds: tuple[type, ...], what: str) -> Any:
        value = self.take(name, default)
        if value is None:
            raise ConfigError(f"{self._prefix}{name!r} is missing")
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise self.refused(name, value, f": {what} is meant")
        return value

    def whole(self, name: str, default: int | None = None, least: int = 1) -> int:
        value = self._typed(name, default, (int, float), "a whole number")
        if value != int(value):
            raise self.refused(name, value, ": a whole number is meant")
        if value < least:
            raise self.refused(name, value, f": at least {least} is meant")
        return int(value)

    def number(self, name: str, default: float | None = None) -> float:
        value = float(self._typed(name, default, (int, float), "a number"))
        if math.isnan(value):
            raise self.refused(name, value, ": a number is meant")
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        return bool(self._typed(name, default, (bool, int), "true or false"))

    @overload
    def text(self, name: str, choices: Mapping[str, T], default: str | None = None) -> T: ...
    @overload
    def text(self, name: str, choices: None = None, default: str | None = None) -> str: ...

    def text(self, name: str, choices: Mapping[str, T] | None = None, default: str | None = None) -> T | str:
        """A word; with ``choices``, what it stands for there."""
        value: str = self._typed(name, default, (str,), "a word")
        if choices is None:
            return value
        if value not in choices:
            raise self.refused(name, value, f" is not supported; there are {', '.join(choices)}")
        return choices[value]

    def words(self, name: str) -> list[str] | None:
        """A list of words; None where it is missing."""
        value = self.take(name)
        if value is not None and not (isinstance(value, list) and all(isinstance(word, str) for word in value)):
            raise self.refused(name, value, ": a list of words is meant")
        return value

    def group(self, name: str) -> Options | None:
        """An object's options, whose names then begin with its own; None where it is missing."""
        value = self.take(name)
        if value is not None and not isinstance(value, dict):
            raise self.refused(name, value, ": an object is meant")
        return None if value is None else Options(value, f"{self._prefix}{name}.")

    def only(self, name: str, *neutral: object) -> None:
        """Refuses every value but these, which change nothing; a missing option or null is one of them."""
        value = self.take(name)
        if value is not None and value not in neutral:
            raise self.refused(name, value, " is not supported")

    def refused(self, name: str, value: object, why: str) -> ConfigError:
        return ConfigError(f"{self._prefix}{name}: {value!r}{why}")

    def has(self, name: str) -> bool:
        """Whether it is there, null included."""
        return name in self._raw

    def put(self, name: str, value: object) -> None:
        """What ``take`` gives from now on."""
        self._raw[name] = value

    def also(self, names: Iterable[str]) -> None:
        """These change nothing here."""
        self._taken.update(names)

    def finish(self) -> None:
        """Refuses what was not taken, unless it is switched off: null, false, zero, empty."""
        for name, value in self._raw.items():
            if name not in self._taken and value not in (None, False, 0, "", [], {}):
                raise self.refused(name, value, " is not supported: unknown option")


# ---- Rope --------------------------------------------------------------------------------------------------------

_SCALED = {"linear": ("factor",), "llama3": ("factor", "low_freq_factor", "high_freq_factor")}
_YARN = ("attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim")


@dataclass(frozen=True)
class Rope:
    """Rope settings under the names of the op's attributes; scaling is "none", "linear", "llama3" or "yarn"."""

    theta: float = 10000.0
    scaling: str = "none"
    numbers: tuple[tuple[str, float], ...] = ()  # attributes of the scaling, where they are given
    original_max_position: int = 0
    truncate: bool = True
    partial: float = 1.0  # the part of a head's dims that is turned

    def attributes(self, head_dim: int) -> dict[str, float | int | str | bool]:
        """For the op, on heads of so many dims."""
        given: dict[str, float | int | str | bool] = {"theta": self.theta}
        if self.rotary_dim(head_dim) != head_dim:
            given["rotary_dim"] = self.rotary_dim(head_dim)
        if self.scaling != "none":
            given |= {"scaling": self.scaling, **dict(self.numbers)}
        if self.scaling in ("llama3", "yarn"):
            given["original_max_position"] = self.original_max_position
        if not self.truncate:
            given["truncate"] = False
        return given

    def rotary_dim(self, head_dim: int) -> int:
        dims = int(head_dim * self.partial)
        if dims < 2 or dims % 2:
            raise ConfigError(
                f"partial_rotary_factor: {self.partial:g} of {head_dim} dims are {dims}: rope turns pairs"
                if self.partial != 1.0
                else f"head_dim: {head_dim} is odd: rope turns pairs"
            )
        return dims

    def attention_scale(self, scale: float) -> float:
        """DeepSeek's way with mscale_all_dim: the softmax scale grows with its square."""
        factor, mscale = (dict(self.numbers).get(name, 0.0) for name in ("factor", "mscale_all_dim"))
        if mscale and factor > 1:
            scale *= (0.1 * mscale * math.log(factor) + 1.0) ** 2
        return scale

    @staticmethod
    def read(options: Options, max_positions: int, partial: float | None = None, inert: Iterable[str] = ()) -> Rope:
        """Reads ``rope_parameters`` (transformers 5), or ``rope_theta`` and ``rope_scaling`` (before).

        Args:
            partial: the family's default of ``partial_rotary_factor``; None: it turns whole heads, always.
            inert: settings that change nothing in this family.
        """
        outer_theta = options.number("rope_theta", 10000.0)
        outer_partial = options.number("partial_rotary_factor", 1.0 if partial is None else partial)
        outer_original = options.take("original_max_position_embeddings")
        scaling, parameters = options.group("rope_scaling"), options.group("rope_parameters")
        settings = scaling or parameters or Options({})
        settings.also(inert)
        theta = settings.number("rope_theta", outer_theta)
        share = settings.number("partial_rotary_factor", outer_partial)
        if partial is None and share != 1.0:
            raise ConfigError(f"partial_rotary_factor: {share:g} is not supported")
        kind = str(settings.take("rope_type", settings.take("type", "default")))
        settings.take("type")
        rope = Rope(theta, partial=share)
        if kind == "default":
            settings.finish()
            return rope
        if kind not in (*_SCALED, "yarn"):
            raise ConfigError(f"rope_type: {kind!r} is not supported; there are default, linear, llama3, yarn")
        original = 0
        if kind != "linear":
            original = int(outer_original or settings.whole("original_max_position_embeddings", max_positions))
            settings.take("original_max_position_embeddings")
        truncate = True
        if kind == "yarn":
            # Where the factor is left out, it is how far the positions were stretched.
            numbers = [("factor", settings.number("factor", max_positions / original))]
            numbers += [(name, settings.number(name)) for name in _YARN if settings.take(name)]
            truncate = settings.flag("truncate", True)
        else:
            try:
                numbers = [(name, settings.number(name)) for name in _SCALED[kind]]
            except ConfigError as error:
                raise ConfigError(f"rope_type: {kind}: {error}") from None
        settings.finish()
        return Rope(theta, kind, tuple(numbers), original, truncate, share)
