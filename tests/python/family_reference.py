"""Forward passes in float64 of Qwen3.5-MoE, Nemotron-H and GLM-4 MoE Lite, written from their formulas.

They share nothing with the builders or the kernels: a whole sequence at once, attention as masked matrices, experts
token by token, Mamba-2 as the sum over all earlier tokens (no state), delta rules as matrices. ``forward`` also gives
the smallest margin by which a router chose: what lies below rounding could go the other way.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def silu(x: Any) -> Any:
    return x * sigmoid(x)


def gelu_tanh(x: Any) -> Any:
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


ACTIVATIONS = {
    "silu": silu,
    "relu2": lambda x: np.maximum(x, 0) ** 2,
    "gelu_pytorch_tanh": gelu_tanh,
}


def rms(x: Any, eps: float) -> Any:
    return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + eps)


# ---- Rope --------------------------------------------------------------------------------------------------------


def frequencies(rope: dict[str, Any], d: int, max_positions: int) -> tuple[Any, float]:
    """Of the d/2 pairs, and the factor of cos and sin."""
    plain = float(rope["rope_theta"]) ** (-np.arange(0, d, 2) / d)
    kind, factor = rope.get("rope_type", "default"), rope.get("factor", 1.0)
    original = rope.get("original_max_position_embeddings", max_positions)
    if kind == "linear":
        return plain / factor, 1.0
    if kind == "llama3":
        turns = original * plain / (2 * math.pi)  # over the original length
        low, high = rope["low_freq_factor"], rope["high_freq_factor"]
        kept = np.clip((turns - low) / (high - low), 0, 1)
        return plain * (kept + (1 - kept) / factor), 1.0
    if kind == "yarn":
        # The pair that turns r times over the original length.
        fast, slow = (
            d * math.log(original / (2 * math.pi * r)) / (2 * math.log(rope["rope_theta"]))
            for r in (rope.get("beta_fast", 32), rope.get("beta_slow", 1))
        )
        if rope.get("truncate", True):
            fast, slow = math.floor(fast), math.ceil(slow)
        fast, slow = max(fast, 0), min(slow, d - 1)
        stretched = np.clip((np.arange(d // 2) - fast) / (slow - fast if slow != fast else 1e-3), 0, 1)
        grow = {m: 0.1 * m * math.log(factor) + 1 if factor > 1 else 1.0 for m in {1, *mscales(rope)}}
        mscale, all_dim = mscales(rope)
        scale = grow[mscale] / grow[all_dim] if mscale and all_dim else grow[1]
        return plain * (1 - stretched) + plain / factor * stretched, rope.get("attention_factor", scale)
    assert kind == "default"
    return plain, 1.0


def mscales(rope: dict[str, Any]) -> tuple[float, float]:
    return rope.get("mscale", 0), rope.get("mscale_all_dim", 0)


def rotate(x: Any, rope: dict[str, Any], d: int, max_positions: int, pairs: bool = False) -> Any:
    """x [T, N, D], its first d dims turned: first with second half, or neighbours (and then laid out in halves)."""
    inverse, scale = frequencies(rope, d, max_positions)
    turn = scale * np.exp(1j * np.arange(len(x))[:, None] * inverse)[:, None, :]
    a, b = (x[..., 0:d:2], x[..., 1:d:2]) if pairs else (x[..., : d // 2], x[..., d // 2 : d])
    turned = (a + 1j * b) * turn
    return np.concatenate([turned.real, turned.imag, x[..., d:]], axis=-1)


# ---- Parts -------------------------------------------------------------------------------------------------------


class Weights:
    """Tensors in float64 by name, with a prefix."""

    def __init__(self, tensors: dict[str, Any], prefix: str = "") -> None:
        self.tensors, self.prefix = tensors, prefix

    def at(self, name: str) -> Weights:
        return Weights(self.tensors, f"{self.prefix}{name}.")

    def __getitem__(self, name: str) -> Any:
        return np.asarray(self.tensors[self.prefix + name]).astype(np.float64)

    def has(self, name: str) -> bool:
        return self.prefix + name in self.tensors

    def linear(self, x: Any, name: str) -> Any:
        return x @ self[f"{name}.weight"].T + (self[f"{name}.bias"] if self.has(f"{name}.bias") else 0.0)


def attend(q: Any, k: Any, v: Any, scale: float) -> Any:
    """[T, N, .] each, of k and v perhaps fewer heads; causal."""
    t, heads = q.shape[:2]
    future = np.triu(np.full((t, t), -np.inf), 1)
    out = np.empty((t, heads, v.shape[-1]))
    for n in range(heads):
        group = n // (heads // k.shape[1])
        scores = q[:, n] @ k[:, group].T * scale + future
        scores = np.exp(scores - scores.max(axis=1, keepdims=True))
        out[:, n] = scores / scores.sum(axis=1, keepdims=True) @ v[:, group]
    return out


def convolve(x: Any, weight: Any, bias: Any) -> Any:
    """Causal, each channel by itself: x [T, C], weight [C, 1, K]."""
    t, kernel = len(x), weight.shape[-1]
    padded = np.concatenate([np.zeros((kernel - 1, x.shape[1])), x])
    return sum(weight[:, 0, j] * padded[j : j + t] for j in range(kernel)) + bias


class Margin:
    """The smallest distance between a chosen and a rejected one so far."""

    def __init__(self) -> None:
        self.least = math.inf

    def choose(self, scores: Any, count: int) -> list[int]:
        order = sorted(range(len(scores)), key=lambda e: -scores[e])
        if count < len(scores):
            self.least = min(self.least, scores[order[count - 1]] - scores[order[count]])
        return order[:count]


def mixture(x: Any, routes: list[dict[int, float]], expert: Any) -> Any:
    """Each token's experts, weighed."""
    return np.array([sum(weight * expert(x[t], e) for e, weight in route.items()) for t, route in enumerate(routes)])


def sigmoid_routes(x: Any, w: Weights, config: dict[str, Any], margin: Margin) -> list[dict[int, float]]:
    """DeepSeek-V3's router: chosen by score plus bias within the best groups, weighed by the score."""
    scores = sigmoid(x @ w["weight"].T)
    groups, routes = config["n_group"], []
    for row, biased in zip(scores, scores + w["e_score_correction_bias"], strict=True):
        by_group = biased.reshape(groups, -1)
        best = margin.choose([sum(sorted(group)[-2:]) for group in by_group], config["topk_group"])
        allowed = [e for e in range(len(row)) if e // by_group.shape[1] in best]
        chosen = [allowed[i] for i in margin.choose(biased[allowed], config["num_experts_per_tok"])]
        total = sum(row[e] for e in chosen) + 1e-20 if config["norm_topk_prob"] else 1.0
        routes.append({e: row[e] / total * config["routed_scaling_factor"] for e in chosen})
    return routes


def gated_mlp(x: Any, w: Weights, activation: Any) -> Any:
    return w.linear(activation(w.linear(x, "gate_proj")) * w.linear(x, "up_proj"), "down_proj")


# ---- Qwen3.5-MoE -------------------------------------------------------------------------------------------------


def qwen(config: dict[str, Any], w: Weights, x: Any, margin: Margin) -> Any:
    eps, heads, d = config["rms_norm_eps"], config["num_attention_heads"], config["head_dim"]
    rope = dict(config["rope_parameters"])
    turned = int(d * rope.get("partial_rotary_factor", config.get("partial_rotary_factor", 0.25)))

    def norm(h: Any, weight: Any) -> Any:
        return rms(h, eps) * (1 + weight)

    def attention(h: Any, w: Weights) -> Any:
        t = len(h)
        both = w.linear(h, "q_proj").reshape(t, heads, 2, d)
        k, v = (w.linear(h, f"{p}_proj").reshape(t, -1, d) for p in "kv")
        q, k = norm(both[:, :, 0], w["q_norm.weight"]), norm(k, w["k_norm.weight"])
        q, k = (rotate(p, rope, turned, config["max_position_embeddings"]) for p in (q, k))
        out = attend(q, k, v, d**-0.5) * sigmoid(both[:, :, 1])
        return w.linear(out.reshape(t, -1), "o_proj")

    def delta_net(h: Any, w: Weights) -> Any:
        t = len(h)
        key_heads, value_heads = config["linear_num_key_heads"], config["linear_num_value_heads"]
        kd, vd = config["linear_key_head_dim"], config["linear_value_head_dim"]
        mixed = silu(convolve(w.linear(h, "in_proj_qkv"), w["conv1d.weight"], 0.0))
        q, k = (mixed[:, i * key_heads * kd :][:, : key_heads * kd].reshape(t, key_heads, kd) for i in (0, 1))
        v = mixed[:, 2 * key_heads * kd :].reshape(t, value_heads, vd)
        q, k = (p / np.sqrt((p * p).sum(axis=-1, keepdims=True) + 1e-6) for p in (q, k))
        beta = sigmoid(w.linear(h, "in_proj_b"))
        keep = np.exp(-np.exp(w["A_log"]) * np.log1p(np.exp(w.linear(h, "in_proj_a") + w["dt_bias"])))
        out = np.empty((t, value_heads, vd))
        for n in range(value_heads):
            state, of = np.zeros((kd, vd)), n // (value_heads // key_heads)
            for i in range(t):
                key = k[i, of][:, None]
                # Decay, then the value stored under the key moves towards v: (1 - beta k k') S + beta k v'.
                state = (np.eye(kd) - beta[i, n] * key @ key.T) @ (keep[i, n] * state)
                state = state + beta[i, n] * key @ v[i, n][None, :]
                out[i, n] = q[i, of] / math.sqrt(kd) @ state
        z = w.linear(h, "in_proj_z").reshape(t, value_heads, vd)
        out = rms(out, eps) * w["norm.weight"] * silu(z)
        return w.linear(out.reshape(t, -1), "out_proj")

    def moe(h: Any, w: Weights) -> Any:
        logits = w.linear(h, "gate")
        probability = np.exp(logits - logits.max(axis=1, keepdims=True))
        routes = []
        for row in probability / probability.sum(axis=1, keepdims=True):
            chosen = margin.choose(row, config["num_experts_per_tok"])
            routes.append({e: row[e] / sum(row[c] for c in chosen) for e in chosen})
        routed = mixture(h, routes, lambda token, e: gated_mlp(token, w.at(f"experts.{e}"), silu))
        return routed + sigmoid(w.linear(h, "shared_expert_gate")) * gated_mlp(h, w.at("shared_expert"), silu)

    for i, kind in enumerate(config["layer_types"]):
        layer = w.at(f"layers.{i}")
        mixer = (attention, "self_attn") if kind == "full_attention" else (delta_net, "linear_attn")
        x = x + mixer[0](norm(x, layer["input_layernorm.weight"]), layer.at(mixer[1]))
        x = x + moe(norm(x, layer["post_attention_layernorm.weight"]), layer.at("mlp"))
    return norm(x, w["norm.weight"])


# ---- Nemotron-H --------------------------------------------------------------------------------------------------


def nemotron(config: dict[str, Any], w: Weights, x: Any, margin: Margin) -> Any:
    eps, activation = config["layer_norm_epsilon"], ACTIVATIONS[config["mlp_hidden_act"]]

    def mamba(h: Any, w: Weights) -> Any:
        t, heads, dim = len(h), config["mamba_num_heads"], config["mamba_head_dim"]
        groups, size, inner = config["n_groups"], config["ssm_state_size"], heads * dim
        z, xbc, dt = np.split(w.linear(h, "in_proj"), [inner, 2 * inner + 2 * groups * size], axis=1)
        xbc = silu(convolve(xbc, w["conv1d.weight"], w["conv1d.bias"] if w.has("conv1d.bias") else 0.0))
        u, b, c = np.split(xbc, [inner, inner + groups * size], axis=1)
        u, b, c = u.reshape(t, heads, dim), b.reshape(t, groups, size), c.reshape(t, groups, size)
        dt = np.maximum(np.log1p(np.exp(dt + w["dt_bias"])), config["time_step_min"])
        out = np.empty((t, heads, dim))
        for n in range(heads):
            group = n // (heads // groups)
            decay = np.cumsum(-np.exp(w["A_log"][n]) * dt[:, n])
            seen = np.tril(np.exp(np.minimum(decay[:, None] - decay[None, :], 0.0)))
            out[:, n] = (seen * (c[:, group] @ b[:, group].T)) @ (dt[:, n, None] * u[:, n]) + w["D"][n] * u[:, n]
        gated = (out.reshape(t, inner) * silu(z)).reshape(t, groups, -1)
        return w.linear(rms(gated, eps).reshape(t, inner) * w["norm.weight"], "out_proj")

    def attention(h: Any, w: Weights) -> Any:
        q, k, v = (w.linear(h, f"{p}_proj").reshape(len(h), -1, config["head_dim"]) for p in "qkv")
        return w.linear(attend(q, k, v, config["head_dim"] ** -0.5).reshape(len(h), -1), "o_proj")

    def mlp(h: Any, w: Weights) -> Any:
        return w.linear(activation(w.linear(h, "up_proj")), "down_proj")

    def moe(h: Any, w: Weights) -> Any:
        routes = sigmoid_routes(h, w.at("gate"), config, margin)
        latent = config.get("moe_latent_size")
        routed = w.linear(h, "fc1_latent_proj") if latent else h
        routed = mixture(routed, routes, lambda token, e: mlp(token, w.at(f"experts.{e}")))
        return (w.linear(routed, "fc2_latent_proj") if latent else routed) + mlp(h, w.at("shared_experts"))

    mixers = {"linear_attention": mamba, "full_attention": attention, "moe": moe, "mlp": mlp}
    for i, kind in enumerate(config["layers_block_type"]):
        layer = w.at(f"layers.{i}")
        x = x + mixers[kind](rms(x, eps) * layer["norm.weight"], layer.at("mixer"))
    return rms(x, eps) * w["norm_f.weight"]


# ---- GLM-4 MoE Lite ----------------------------------------------------------------------------------------------


def glm(config: dict[str, Any], w: Weights, x: Any, margin: Margin) -> Any:
    eps, heads, rope = config["rms_norm_eps"], config["num_attention_heads"], config["rope_parameters"]
    nope, pe, latent = config["qk_nope_head_dim"], config["qk_rope_head_dim"], config["kv_lora_rank"]
    activation = ACTIVATIONS[config["hidden_act"]]

    def attention(h: Any, w: Weights) -> Any:
        t = len(h)
        if config.get("q_lora_rank"):
            q = w.linear(rms(w.linear(h, "q_a_proj"), 1e-6) * w["q_a_layernorm.weight"], "q_b_proj")
        else:
            q = w.linear(h, "q_proj")
        q = q.reshape(t, heads, nope + pe)
        compressed = w.linear(h, "kv_a_proj_with_mqa")
        wide = w.linear(rms(compressed[:, :latent], 1e-6) * w["kv_a_layernorm.weight"], "kv_b_proj")
        wide = wide.reshape(t, heads, nope + config["v_head_dim"])
        interleave = config.get("rope_interleave", True)
        turn = [q[..., nope:], compressed[:, None, latent:]]
        q_pe, k_pe = (rotate(p, rope, pe, config["max_position_embeddings"], interleave) for p in turn)
        scale = (nope + pe) ** -0.5
        if rope.get("mscale_all_dim") and rope["factor"] > 1:
            scale *= (1 + 0.1 * rope["mscale_all_dim"] * math.log(rope["factor"])) ** 2
        q = np.concatenate([q[..., :nope], q_pe], axis=-1)
        k = np.concatenate([wide[..., :nope], np.repeat(k_pe, heads, axis=1)], axis=-1)
        return w.linear(attend(q, k, wide[..., nope:], scale).reshape(t, -1), "o_proj")

    def moe(h: Any, w: Weights) -> Any:
        routes = sigmoid_routes(h, w.at("gate"), config, margin)
        routed = mixture(h, routes, lambda token, e: gated_mlp(token, w.at(f"experts.{e}"), activation))
        return routed + (gated_mlp(h, w.at("shared_experts"), activation) if config["n_shared_experts"] else 0.0)

    for i, kind in enumerate(config["mlp_layer_types"]):
        layer = w.at(f"layers.{i}")
        x = x + attention(rms(x, eps) * layer["input_layernorm.weight"], layer.at("self_attn"))
        h = rms(x, eps) * layer["post_attention_layernorm.weight"]
        x = x + (gated_mlp(h, layer.at("mlp"), activation) if kind == "dense" else moe(h, layer.at("mlp")))
    return rms(x, eps) * w["norm.weight"]


FAMILIES = {
    "qwen3_5_moe_text": (qwen, "model", "embed_tokens"),
    "nemotron_h": (nemotron, "backbone", "embeddings"),
    "glm4_moe_lite": (glm, "model", "embed_tokens"),
}


def forward(config: dict[str, Any], tensors: dict[str, Any], ids: Any) -> tuple[Any, float]:
    """Logits [T, vocab] of one sequence, and the routers' smallest margin."""
    layers, prefix, table = FAMILIES[config["model_type"]]
    w, margin = Weights(tensors).at(prefix), Margin()
    embedding = w[f"{table}.weight"]
    head = Weights(tensors)["lm_head.weight"] if "lm_head.weight" in tensors else embedding
    return layers(config, w, embedding[ids], margin) @ head.T, margin.least
