"""What typical mistakes of an engine would cost on a fixture: a fixture that a wrong engine passes is worth little.

Each mistake replaces one function of `kimi_k2.py` or one value of the config and gives the largest change of a logit.
"""
from unittest import mock

import numpy as np

import kimi_k2


def cost_of_mistakes(config, weights, ids, logits):
    costs = {}
    for mistake, (applies, function, wrong) in MISTAKES.items():
        if applies(config, len(ids)):
            with mock.patch.object(kimi_k2, function, wrong):
                costs[mistake] = np.abs(kimi_k2.forward(config, weights, ids) - logits).max()
    return costs


def half_split_rotation(x, cos, sin):
    """Pairs (i, i + d/2), as in GPT-NeoX, instead of neighbours."""
    a, b = np.split(x, 2, axis=-1)
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


def plain_scale(config):
    return (config["qk_nope_head_dim"] + config["qk_rope_head_dim"]) ** -0.5


def scale_with_mscale_once(config):
    return plain_scale(config) * kimi_k2.yarn_mscale(config, "mscale_all_dim")


def plain_frequencies(config):
    return INVERSE_FREQUENCIES(config | {"rope_scaling": None})


def frequencies_with_other_beta(config):
    other = 32.0 if config["rope_scaling"]["beta_fast"] == 1 else 1.0
    return INVERSE_FREQUENCIES(config | {"rope_scaling": config["rope_scaling"] | {"beta_fast": other}})


def choose_without_bias(config, scores, bias):
    return CHOOSE(config, scores, np.zeros_like(bias))


def choose_without_groups(config, scores, bias):
    return CHOOSE(config | {"n_group": 1, "topk_group": 1}, scores, bias)


def route_with_bias_in_weights(config, w, x, trace):
    chosen, _ = ROUTE(config, w, x, {})
    scores = 1 / (1 + np.exp(-(x @ w["gate.weight"].T))) + w["gate.e_score_correction_bias"]
    return chosen, kimi_k2.combine_weights(config, scores, chosen)


def route_other_norm_topk_prob(config, w, x, trace):
    return ROUTE(config | {"norm_topk_prob": not config["norm_topk_prob"]}, w, x, {})


def route_without_scaling(config, w, x, trace):
    return ROUTE(config | {"routed_scaling_factor": 1.0}, w, x, {})


INVERSE_FREQUENCIES, CHOOSE, ROUTE = kimi_k2.inverse_frequencies, kimi_k2.choose, kimi_k2.route


def always(config, tokens):
    return True


def with_yarn(config, tokens):
    return config["rope_scaling"] is not None


def with_a_factor(config, tokens):
    return kimi_k2.cos_sin_factor(config) != 1


def with_groups(config, tokens):
    return config["n_group"] > 1


def past_the_original_context(config, tokens):
    return with_yarn(config, tokens) and tokens > 2 * config["rope_scaling"]["original_max_position_embeddings"]


# mistake -> (where it should show: config and prompt length; the function it replaces; by what)
MISTAKES = {
    "half-split rope": (always, "rotate", half_split_rotation),
    "no mscale in the softmax scale": (with_yarn, "softmax_scale", plain_scale),
    "mscale once instead of squared": (with_yarn, "softmax_scale", scale_with_mscale_once),
    "no YaRN frequencies": (past_the_original_context, "inverse_frequencies", plain_frequencies),
    "the other release's beta_fast": (past_the_original_context, "inverse_frequencies", frequencies_with_other_beta),
    "cos and sin without their factor": (with_a_factor, "cos_sin_factor", lambda config: 1.0),
    "bias left out of the selection": (always, "choose", choose_without_bias),
    "bias in the weights": (always, "route", route_with_bias_in_weights),
    "norm_topk_prob the other way": (always, "route", route_other_norm_topk_prob),
    "no routed scaling": (always, "route", route_without_scaling),
    "no group limit": (with_groups, "choose", choose_without_groups),
}
