"""The forward pass of Kimi K2 in NumPy: slow, obvious, float64. The engine is measured against it.

Architecture: the K2 report (arXiv 2507.20534), DeepSeek-V3 (arXiv 2412.19437: MLA, routing), YaRN (arXiv
2309.00071). All weights are [out, in]: y = x W^T. Left out: caches, batches, anything for speed.
"""
import numpy as np

LATENT_NORM_EPS = 1e-6  # q_a_layernorm and kv_a_layernorm, whatever rms_norm_eps says


def forward(config, weights, ids, trace=None, absorbed=False):
    """Logits [T, V] of one prompt. The numbers have the dtype of `weights`; `trace` (a dict) receives the rest."""
    trace = {} if trace is None else trace
    eps, moe_layers = config["rms_norm_eps"], range(config["first_k_dense_replace"], config["num_hidden_layers"])
    keep(trace, "router_layers", list(moe_layers))
    x = weights["model.embed_tokens.weight"][ids]  # [T, H]
    keep(trace, "hidden_states", x)
    for layer in range(config["num_hidden_layers"]):
        at = Prefixed(weights, f"model.layers.{layer}.")
        normed = rms_norm(x, at["input_layernorm.weight"], eps)
        x = x + keep(trace, "attn_out", attention(config, at.inside("self_attn."), normed, trace, absorbed))
        normed = rms_norm(x, at["post_attention_layernorm.weight"], eps)
        block = moe if layer in moe_layers else dense
        x = x + keep(trace, "mlp_out", block(config, at.inside("mlp."), normed, trace))
        keep(trace, "hidden_states", x)
    x = keep(trace, "final_hidden", rms_norm(x, weights["model.norm.weight"], eps))
    return x @ weights["lm_head.weight"].T


def rms_norm(x, weight, eps):
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + x.dtype.type(eps)) * weight


# --- attention: multi-head latent attention ---------------------------------------------------------

def attention(config, w, x, trace, absorbed):
    heads, nope, rope = (config[k] for k in ("num_attention_heads", "qk_nope_head_dim", "qk_rope_head_dim"))
    value, latent_width, tokens = config["v_head_dim"], config["kv_lora_rank"], len(x)
    q = queries(config, w, x).reshape(tokens, heads, nope + rope)
    latent, k_rope = np.split(x @ w["kv_a_proj_with_mqa.weight"].T, [latent_width], axis=-1)
    latent = keep(trace, "cache_kv_latent", rms_norm(latent, w["kv_a_layernorm.weight"], LATENT_NORM_EPS))
    cos, sin = rotation(config, tokens, x.dtype)
    q_nope, q_rope = q[..., :nope], rotate(q[..., nope:], cos[:, None], sin[:, None])
    k_rope = rotate(k_rope, cos, sin)
    keep(trace, "cache_k_rope", np.concatenate([k_rope[:, 0::2], k_rope[:, 1::2]], axis=-1))

    w_uk, w_uv = np.split(w["kv_b_proj.weight"].reshape(heads, nope + value, latent_width), [nope], axis=1)
    if absorbed:  # the query goes into the latent space
        scores = np.einsum("thl,sl->hts", np.einsum("thn,hnl->thl", q_nope, w_uk), latent)
    else:  # the keys come out of it
        scores = np.einsum("thn,shn->hts", q_nope, np.einsum("sl,hnl->shn", latent, w_uk))
    scores = (scores + np.einsum("thr,sr->hts", q_rope, k_rope)) * x.dtype.type(softmax_scale(config))
    shares = causal_softmax(scores)  # [heads, T, T]
    if absorbed:
        out = np.einsum("thl,hvl->thv", np.einsum("hts,sl->thl", shares, latent), w_uv)
    else:
        out = np.einsum("hts,shv->thv", shares, np.einsum("sl,hvl->shv", latent, w_uv))
    return out.reshape(tokens, heads * value) @ w["o_proj.weight"].T


def queries(config, w, x):
    if config["q_lora_rank"] is None:
        return x @ w["q_proj.weight"].T
    return rms_norm(x @ w["q_a_proj.weight"].T, w["q_a_layernorm.weight"], LATENT_NORM_EPS) @ w["q_b_proj.weight"].T


def causal_softmax(scores):
    later = np.triu(np.ones(scores.shape[-2:], bool), 1)
    scores = np.where(later, -np.inf, scores)
    shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return shares / shares.sum(axis=-1, keepdims=True)


def rotate(x, cos, sin):
    """Channels 2i and 2i+1 are a pair, rotated by angle i."""
    a, b = x[..., 0::2], x[..., 1::2]
    return np.stack([a * cos - b * sin, b * cos + a * sin], axis=-1).reshape(x.shape)


def rotation(config, tokens, dtype):
    """cos and sin [T, rope / 2] of every position and pair, the attention factor included."""
    angles = np.outer(np.arange(tokens), inverse_frequencies(config))
    factor = cos_sin_factor(config)
    return (np.cos(angles) * factor).astype(dtype), (np.sin(angles) * factor).astype(dtype)


def inverse_frequencies(config):
    """Plain, or YaRN's blend of extrapolated (fast pairs) and interpolated (slow pairs) frequencies."""
    d, base, yarn = config["qk_rope_head_dim"], config["rope_theta"], config["rope_scaling"]
    extrapolated = base ** -(np.arange(0, d, 2) / d)
    if yarn is None:
        return extrapolated

    def pair_with(turns):  # the pair that makes so many turns within the original context
        return d * np.log(yarn["original_max_position_embeddings"] / (2 * np.pi * turns)) / (2 * np.log(base))

    low, high = max(np.floor(pair_with(yarn["beta_fast"])), 0), min(np.ceil(pair_with(yarn["beta_slow"])), d - 1)
    high += 0.001 if low == high else 0
    ramp = np.clip((np.arange(d // 2) - low) / (high - low), 0, 1)
    return extrapolated / yarn["factor"] * ramp + extrapolated * (1 - ramp)


def yarn_mscale(config, which):
    yarn = config["rope_scaling"]
    return 1.0 if yarn is None or yarn["factor"] <= 1 else 0.1 * yarn[which] * np.log(yarn["factor"]) + 1


def cos_sin_factor(config):
    return yarn_mscale(config, "mscale") / yarn_mscale(config, "mscale_all_dim")


def softmax_scale(config):
    width = config["qk_nope_head_dim"] + config["qk_rope_head_dim"]
    return width ** -0.5 * yarn_mscale(config, "mscale_all_dim") ** 2


# --- feed-forward: dense, or a mixture of experts ---------------------------------------------------

def dense(config, w, x, trace):
    return mlp(w, x)


def mlp(w, x):
    gate = x @ w["gate_proj.weight"].T
    return (gate / (1 + np.exp(-gate)) * (x @ w["up_proj.weight"].T)) @ w["down_proj.weight"].T


def moe(config, w, x, trace):
    chosen, shares = route(config, w, x, trace)
    out = np.zeros_like(x)
    for expert in range(config["n_routed_experts"]):
        tokens, slots = np.nonzero(chosen == expert)
        out[tokens] += shares[tokens, slots, None] * mlp(w.inside(f"experts.{expert}."), x[tokens])
    return out + mlp(w.inside("shared_experts."), x)


def route(config, w, x, trace):
    """Chosen experts [T, k], ascending, and their weights."""
    logits, bias = keep(trace, "router_logits", x @ w["gate.weight"].T), w["gate.e_score_correction_bias"]
    scores = 1 / (1 + np.exp(-logits))
    chosen, margin = choose(config, scores, bias)
    keep(trace, "router_indices", chosen)
    keep(trace, "router_margin", margin)
    return chosen, keep(trace, "router_weights", combine_weights(config, scores, chosen))


def choose(config, scores, bias):
    """The k best experts of the best groups, and the margin of the nearest decision. The bias has its say here only."""
    choice = scores + bias
    k, groups, kept = config["num_experts_per_tok"], config["n_group"], config["topk_group"]
    margin = np.full(len(choice), np.inf)
    if kept < groups:
        grouped = choice.reshape(len(choice), groups, -1)
        group_scores = np.sort(grouped, axis=-1)[..., -2:].sum(axis=-1)  # its two best experts speak for a group
        best = np.sort(group_scores, axis=-1)[:, ::-1]
        margin = best[:, kept - 1] - best[:, kept]
        stays = group_scores >= best[:, kept - 1:kept]
        choice = np.where(stays[..., None], grouped, -np.inf).reshape(choice.shape)
    order = np.argsort(-choice, axis=-1)
    ranked = np.take_along_axis(choice, order, axis=-1)
    if k < choice.shape[-1]:
        margin = np.minimum(margin, ranked[:, k - 1] - ranked[:, k])
    return np.sort(order[:, :k], axis=-1), margin


def combine_weights(config, scores, chosen):
    shares = np.take_along_axis(scores, chosen, axis=-1)
    if config["norm_topk_prob"]:
        shares = shares / (shares.sum(axis=-1, keepdims=True) + scores.dtype.type(1e-20))
    return shares * scores.dtype.type(config["routed_scaling_factor"])


# --- names and traces -------------------------------------------------------------------------------

class Prefixed:
    """The weights whose names begin alike."""

    def __init__(self, weights, prefix):
        self.weights, self.prefix = weights, prefix

    def __getitem__(self, name):
        return self.weights[self.prefix + name]

    def inside(self, prefix):
        return Prefixed(self.weights, self.prefix + prefix)


def keep(trace, name, value):
    trace.setdefault(name, []).append(value)
    return value
