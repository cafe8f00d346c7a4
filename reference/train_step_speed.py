#!/usr/bin/env python3
"""The training step of `cargo run --release -p k2-train --example step_speed` in PyTorch, for its speed and memory.

    pip install torch
    python reference/train_step_speed.py [threads] [steps]

The same architecture and batch, those of recipes/tiny.toml (each sequence one document, all positions in the loss), and
optimizer (Muon in f32 for matrices inside the layers, AdamW for the rest), written the way PyTorch is fast on a CPU: fused
attention, tokens sorted by expert so that each expert is one product, experts' weights stacked so that Newton-Schulz is
batched. Alternate it with the example, on an otherwise idle machine.
"""
import resource
import sys
import time
import tomllib
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

RECIPE = tomllib.loads((Path(__file__).parent.parent / "recipes" / "tiny.toml").read_text())
MODEL, SEQUENCES, LENGTH = RECIPE["model"], RECIPE["batch"]["sequences"], RECIPE["batch"]["length"]
HIDDEN, LAYERS, DENSE_LAYERS, EXPERTS, TOP_K, WIDTH, DENSE, VOCAB = (MODEL[key] for key in (
    "hidden_size", "num_hidden_layers", "first_k_dense_replace", "n_routed_experts", "num_experts_per_tok",
    "moe_intermediate_size", "intermediate_size", "vocab_size"))
HEADS, NOPE, ROPE, V, Q_LORA, KV_LORA, THETA, SCALING = (MODEL[key] for key in (
    "num_attention_heads", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "q_lora_rank", "kv_lora_rank",
    "rope_theta", "routed_scaling_factor"))


def matrix(*shape):
    return nn.Parameter(torch.randn(*shape) * 0.5 / HIDDEN**0.5)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.q_a, self.q_b = matrix(Q_LORA, HIDDEN), matrix(HEADS * (NOPE + ROPE), Q_LORA)
        self.kv_a, self.kv_b = matrix(KV_LORA + ROPE, HIDDEN), matrix(HEADS * (NOPE + V), KV_LORA)
        self.o = matrix(HIDDEN, HEADS * V)
        self.q_norm, self.kv_norm = nn.RMSNorm(Q_LORA, eps=1e-6), nn.RMSNorm(KV_LORA, eps=1e-6)

    def forward(self, x, cos, sin):
        b, t, _ = x.shape
        q = F.linear(self.q_norm(F.linear(x, self.q_a)), self.q_b).view(b, t, HEADS, NOPE + ROPE).transpose(1, 2)
        latent, k_rope = F.linear(x, self.kv_a).split([KV_LORA, ROPE], -1)
        kv = F.linear(self.kv_norm(latent), self.kv_b).view(b, t, HEADS, NOPE + V).transpose(1, 2)
        k_nope, v = kv.split([NOPE, V], -1)
        k_rope = rotate(k_rope.unsqueeze(1), cos, sin).expand(-1, HEADS, -1, -1)
        q = torch.cat([q[..., :NOPE], rotate(q[..., NOPE:], cos, sin)], -1)
        out = F.scaled_dot_product_attention(q, torch.cat([k_nope, k_rope], -1), v, is_causal=True)
        return F.linear(out.transpose(1, 2).reshape(b, t, HEADS * V), self.o)


def rotate(x, cos, sin):
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack([a * cos - b * sin, b * cos + a * sin], -1).flatten(-2)


class Mlp(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.gate_up, self.down = matrix(2 * width, HIDDEN), matrix(HIDDEN, width)

    def forward(self, x):
        gate, up = F.linear(x, self.gate_up).chunk(2, -1)
        return F.linear(F.silu(gate) * up, self.down)


class Moe(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate = matrix(EXPERTS, HIDDEN)
        self.gate_up, self.down = matrix(EXPERTS, 2 * WIDTH, HIDDEN), matrix(EXPERTS, HIDDEN, WIDTH)
        self.shared = Mlp(WIDTH)

    def forward(self, x):
        shape, x = x.shape, x.reshape(-1, HIDDEN)
        scores = torch.sigmoid(F.linear(x, self.gate))
        chosen = scores.topk(TOP_K, -1).indices
        weights = scores.gather(-1, chosen)
        weights = weights / (weights.sum(-1, keepdim=True) + 1e-20) * SCALING
        order = chosen.flatten().argsort(stable=True)
        counts = torch.bincount(chosen.flatten(), minlength=EXPERTS).tolist()
        tokens = order // TOP_K
        outputs = []
        for expert, rows in enumerate(x[tokens].split(counts)):
            gate, up = F.linear(rows, self.gate_up[expert]).chunk(2, -1)
            outputs.append(F.linear(F.silu(gate) * up, self.down[expert]))
        mixed = torch.cat(outputs) * weights.flatten()[order].unsqueeze(-1)
        return (torch.zeros_like(x).index_add(0, tokens, mixed) + self.shared(x)).view(shape)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = matrix(VOCAB, HIDDEN), matrix(VOCAB, HIDDEN)
        self.attention = nn.ModuleList(Attention() for _ in range(LAYERS))
        self.mlp = nn.ModuleList(Mlp(DENSE) if layer < DENSE_LAYERS else Moe() for layer in range(LAYERS))
        self.norms = nn.ModuleList(nn.RMSNorm(HIDDEN, eps=1e-6) for _ in range(2 * LAYERS + 1))
        angles = torch.outer(torch.arange(LENGTH), THETA ** (-torch.arange(0, ROPE, 2) / ROPE))
        self.cos, self.sin = angles.cos(), angles.sin()

    def forward(self, tokens, targets):
        x = F.embedding(tokens, self.embed)
        for layer in range(LAYERS):
            x = x + self.attention[layer](self.norms[2 * layer](x), self.cos, self.sin)
            x = x + self.mlp[layer](self.norms[2 * layer + 1](x))
        return F.cross_entropy(F.linear(self.norms[-1](x), self.head).flatten(0, 1), targets.flatten())


@torch.no_grad()
def muon(weights, momentum, lr=1e-3, decay=0.1):
    """One matrix, a fused pair of matrices, or a stack of experts."""
    momentum.mul_(0.95).add_(weights.grad)
    pieces = momentum.unsqueeze(0) if momentum.dim() == 2 else momentum
    fused = pieces.shape[-2] == 2 * WIDTH and pieces.shape[-1] == HIDDEN or pieces.shape[-2] == 2 * DENSE
    x = pieces.reshape(-1, pieces.shape[-2] // 2, pieces.shape[-1]) if fused else pieces
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        a = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(a, a, a, beta=-4.7750, alpha=2.0315), x, beta=3.4445)
    x = x.mT if tall else x
    scale = 0.2 * max(x.shape[-2:]) ** 0.5
    weights.mul_(1 - lr * decay).sub_(x.reshape(weights.shape), alpha=lr * scale)


def main():
    threads, steps = (int(a) for a in (sys.argv[1:] + ["2", "6"][len(sys.argv) - 1:])[:2])
    torch.set_num_threads(threads)
    torch.manual_seed(1)
    model = Model()
    tables = [p for p in model.parameters() if p.dim() == 1 or p.shape[0] == VOCAB]
    table_ids = {id(p) for p in tables}
    matrices = [(p, torch.zeros_like(p)) for p in model.parameters() if id(p) not in table_ids]
    adamw = torch.optim.AdamW(tables, lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1)
    tokens, targets = (torch.randint(VOCAB, (SEQUENCES, LENGTH)) for _ in range(2))
    print(f"{sum(p.numel() for p in model.parameters())} weights, {threads} threads, torch {torch.__version__}")
    for step in range(steps):
        start = time.perf_counter()
        loss = model(tokens, targets)
        loss.backward()
        gradient = time.perf_counter() - start
        for weights, momentum in matrices:
            muon(weights, momentum)
        adamw.step()
        model.zero_grad()
        seconds = time.perf_counter() - start
        print(f"step {step}: loss {loss.item():.4f}, gradient {gradient:.3f} s, optimizer {seconds - gradient:.3f} s, "
              f"{SEQUENCES * LENGTH / seconds:.0f} tokens/s")
    print(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MB at most")


if __name__ == "__main__":
    main()
