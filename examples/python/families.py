"""The model families, by config.json's model_type.

    config = load_config(folder)
    graph = build(engine, config, max_tokens, max_seqs, max_len)
"""

from __future__ import annotations

from pathlib import Path

from config import ConfigError, Options
from glm4_moe_lite import Glm4MoeLiteConfig
from llama import LlamaConfig
from nemotron_h import NemotronHConfig
from network import Config, build
from qwen3_5_moe import Qwen35MoeConfig

__all__ = ["FAMILIES", "build", "load_config"]

FAMILIES: dict[str, type[Config]] = {
    "llama": LlamaConfig,
    "qwen3_5_moe_text": Qwen35MoeConfig,
    "qwen3_5_moe": Qwen35MoeConfig,
    "nemotron_h": NemotronHConfig,
    "glm4_moe_lite": Glm4MoeLiteConfig,
}


def load_config(folder: str | Path) -> Config:
    """Reads config.json; raises ConfigError, which begins with its path and names the option."""
    kind = Options.from_dir(folder).take("model_type")
    if kind not in FAMILIES:
        known = ", ".join(FAMILIES)
        raise ConfigError(f"{Path(folder) / 'config.json'}: model_type: {kind!r} is not supported; there are {known}")
    return FAMILIES[kind].from_dir(folder)
