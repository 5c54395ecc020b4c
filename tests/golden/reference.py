"""The whole family as plain float32 torch: the second opinion beside transformers, and the first for what transformers lacks.

A model is a config.json dictionary and a dictionary of tensors under their published names. Nothing is cached and nothing is fast.
`margins` collects the smallest gap by which any discrete choice (router, indexer) was made, so that a golden is never a coin toss.
"""

import math

import torch
import torch.nn.functional as F

MLA_FAMILIES = ("deepseek_v2", "deepseek_v3", "deepseek_v32")


def rms_norm(x, weight, eps):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight


def magnitude(factor, mscale):
    """YaRN's growth of attention with the stretch of the context."""
    return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0


def rope_frequencies(config, dim):
    """Radians per position of each rotated pair, and the factor on cosine and sine."""
    theta = config["rope_theta"]
    frequency = theta ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    scaling = config.get("rope_scaling")
    if not scaling:
        return frequency, 1.0
    kind, factor = scaling.get("type") or scaling["rope_type"], scaling["factor"]
    if kind == "linear":
        return frequency / factor, 1.0
    original = scaling["original_max_position_embeddings"]
    if kind == "llama3":
        low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
        turns = original * frequency / (2 * math.pi)
        blend = ((turns - low) / (high - low)).clamp(0, 1)
        return (1 - blend) * frequency / factor + blend * frequency, 1.0
    if kind == "yarn":

        def pair_with(turns):
            return dim * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(theta))

        low = max(math.floor(pair_with(scaling.get("beta_fast", 32))), 0)
        high = min(math.ceil(pair_with(scaling.get("beta_slow", 1))), dim - 1)
        ramp = ((torch.arange(dim // 2, dtype=torch.float64) - low) / max(high - low, 0.001)).clamp(0, 1)
        stretched = ramp * frequency / factor + (1 - ramp) * frequency
        if scaling.get("mscale") and scaling.get("mscale_all_dim"):
            return stretched, magnitude(factor, scaling["mscale"]) / magnitude(factor, scaling["mscale_all_dim"])
        return stretched, scaling.get("attention_factor", magnitude(factor, 1) * scaling.get("attn_factor", 1.0))
    raise ValueError(f"rope scaling {kind}")


def rotate(x, angles, amplitude, pairs):
    """x [rows, heads, dim]; angles [rows, dim / 2]. Pairs are (2i, 2i + 1), otherwise (i, i + dim / 2)."""
    cos, sin = (amplitude * angles.cos()).float()[:, None], (amplitude * angles.sin()).float()[:, None]
    half = x.shape[-1] // 2
    a, b = (x[..., 0::2], x[..., 1::2]) if pairs else (x[..., :half], x[..., half:])
    left, right = a * cos - b * sin, b * cos + a * sin
    return torch.stack((left, right), -1).flatten(-2) if pairs else torch.cat((left, right), -1)


class Reference:
    def __init__(self, config, weights):
        self.config = config
        self.weights = {name: tensor.float() for name, tensor in weights.items()}
        self.margins = []
        self.trace = {}

    def keep(self, name, value):
        self.trace[name] = value
        return value

    def linear(self, name, x):
        return F.linear(x, self.weights[name + ".weight"], self.weights.get(name + ".bias"))

    def norm(self, name, x, eps=None):
        return rms_norm(x, self.weights[name + ".weight"], self.config["rms_norm_eps"] if eps is None else eps)

    def note_margin(self, scores, chosen):
        """scores [rows, n]: how far apart the last one chosen and the first one left are."""
        finite = scores.sort(-1, descending=True).values
        if 0 < chosen < scores.shape[-1]:
            gap = finite[:, chosen - 1] - finite[:, chosen]
            gap = gap[torch.isfinite(gap)]
            if gap.numel():
                self.margins.append(gap.min().item())

    def attend(self, q, k, v, scale, hidden):
        """q, k [rows, heads, dim], v [rows, heads, v_dim]; hidden [rows, keys] is true where a key may not be seen."""
        scores = torch.einsum("qhd,khd->hqk", q, k) * scale
        probabilities = scores.masked_fill(hidden, -torch.inf).softmax(-1)
        return torch.einsum("hqk,khd->qhd", probabilities, v).flatten(1)

    def unseen(self, layer, future):
        """What lies ahead, or behind the window of a layer that has one."""
        if not self.config.get("use_sliding_window") or layer < self.config["max_window_layers"]:
            return future
        return future | torch.ones_like(future).tril(-self.config["sliding_window"])

    def gqa(self, at, x, angles_of, future):
        c, rows = self.config, x.shape[0]
        heads, kv_heads = c["num_attention_heads"], c["num_key_value_heads"]
        dim = c.get("head_dim") or c["hidden_size"] // heads
        q = self.linear(at + "q_proj", x).view(rows, heads, dim)
        k = self.linear(at + "k_proj", x).view(rows, kv_heads, dim)
        v = self.linear(at + "v_proj", x).view(rows, kv_heads, dim)
        if c["model_type"] == "qwen3":
            q, k = self.norm(at + "q_norm", q), self.norm(at + "k_norm", k)
        angles, amplitude = angles_of(dim)
        q, k = rotate(q, angles, amplitude, pairs=False), rotate(k, angles, amplitude, pairs=False)
        share = heads // kv_heads
        out = self.attend(q, k.repeat_interleave(share, 1), v.repeat_interleave(share, 1), dim**-0.5, future)
        return self.linear(at + "o_proj", out)

    def mla(self, at, x, angles_of, future):
        c, rows = self.config, x.shape[0]
        heads, nope, rope, v_dim = (c[k] for k in ("num_attention_heads", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"))
        latent = None
        if c.get("q_lora_rank"):
            latent = self.norm(at + "q_a_layernorm", self.linear(at + "q_a_proj", x), 1e-6)
            q = self.linear(at + "q_b_proj", latent)
        else:
            q = self.linear(at + "q_proj", x)
        q_nope, q_rope = q.view(rows, heads, nope + rope).split((nope, rope), -1)
        kv, k_rope = self.linear(at + "kv_a_proj_with_mqa", x).split((c["kv_lora_rank"], rope), -1)
        kv = self.linear(at + "kv_b_proj", self.norm(at + "kv_a_layernorm", kv, 1e-6))
        k_nope, v = kv.view(rows, heads, nope + v_dim).split((nope, v_dim), -1)

        angles, amplitude = angles_of(rope)
        q_rope = rotate(q_rope, angles, amplitude, pairs=True)
        k_rope = rotate(k_rope[:, None], angles, amplitude, pairs=True).expand(-1, heads, -1)
        scale, scaling = (nope + rope) ** -0.5, c.get("rope_scaling")
        if scaling and scaling.get("mscale_all_dim"):
            scale *= magnitude(scaling["factor"], scaling["mscale_all_dim"]) ** 2
        if c["model_type"] == "deepseek_v32":
            future = future | self.unselected(at + "indexer.", x, latent, angles, amplitude, future)
        out = self.attend(torch.cat((q_nope, q_rope), -1), torch.cat((k_nope, k_rope), -1), v, scale, future)
        return self.linear(at + "o_proj", out)

    def unselected(self, at, x, latent, angles, amplitude, future):
        """The lightning indexer: true at keys that a row does not attend."""
        c, rows, rope = self.config, x.shape[0], self.config["qk_rope_head_dim"]
        heads, dim = c["index_n_heads"], c["index_head_dim"]
        q = self.linear(at + "wq_b", latent).view(rows, heads, dim)
        k = F.layer_norm(self.linear(at + "wk", x), (dim,), self.weights[at + "k_norm.weight"], self.weights[at + "k_norm.bias"], 1e-6)
        k = k[:, None]
        q, k = (torch.cat((rotate(t[..., :rope], angles, amplitude, pairs=False), t[..., rope:]), -1) for t in (q, k))
        weights = self.linear(at + "weights_proj", x) * heads**-0.5 * dim**-0.5
        scores = torch.einsum("qh,qhk->qk", weights, torch.einsum("qhd,kd->qhk", q, k[:, 0]).relu())
        scores = scores.masked_fill(future, -torch.inf)
        keys = min(c["index_topk"], rows)
        self.note_margin(scores, keys)
        return torch.ones_like(future).scatter(-1, scores.topk(keys, -1).indices, False)

    def mlp(self, at, x):
        return self.linear(at + "down_proj", F.silu(self.linear(at + "gate_proj", x)) * self.linear(at + "up_proj", x))

    def route(self, at, x):
        """Expert ids and weights, both [rows, active]."""
        c = self.config
        rows, experts, active = x.shape[0], c["n_routed_experts"], c["num_experts_per_tok"]
        groups = c.get("n_group") or 1
        logits = self.linear(at + "gate", x)
        if c.get("scoring_func", "softmax") == "softmax":
            scores = choice = logits.softmax(-1)
        else:
            scores = logits.sigmoid()
            choice = scores + self.weights[at + "gate.e_score_correction_bias"]
        limited = c.get("topk_method") in ("group_limited_greedy", "noaux_tc") and groups > 1
        if limited:
            grouped = choice.view(rows, groups, experts // groups)
            best = grouped.amax(-1) if c["topk_method"] == "group_limited_greedy" else grouped.topk(2, -1).values.sum(-1)
            self.note_margin(best, c["topk_group"])
            kept = torch.zeros_like(best, dtype=torch.bool).scatter(1, best.topk(c["topk_group"], -1).indices, True)
            choice = choice.masked_fill(~kept.repeat_interleave(experts // groups, 1), -torch.inf)
        self.note_margin(choice, active)
        chosen = choice.topk(active, -1).indices
        weights = scores.gather(1, chosen)
        if c.get("norm_topk_prob") and active > 1:
            weights = weights / (weights.sum(-1, keepdim=True) + 1e-20)
        return chosen, weights * c.get("routed_scaling_factor", 1.0)

    def moe(self, at, x):
        chosen, weights = self.route(at, x)
        out = torch.zeros_like(x)
        for expert in range(self.config["n_routed_experts"]):
            row, slot = (chosen == expert).nonzero(as_tuple=True)
            out[row] += weights[row, slot, None] * self.mlp(f"{at}experts.{expert}.", x[row])
        return out + self.mlp(at + "shared_experts.", x) if self.config.get("n_shared_experts") else out

    def is_moe(self, layer):
        c = self.config
        return bool(c.get("n_routed_experts")) and layer >= c.get("first_k_dense_replace", 0) and layer % c.get("moe_layer_freq", 1) == 0

    @torch.no_grad()
    def logits(self, ids):
        """[rows, vocab] for a whole sequence from position 0."""
        c, rows = self.config, len(ids)
        positions = torch.arange(rows, dtype=torch.float64)
        future = torch.ones(rows, rows, dtype=torch.bool).triu(1)

        def angles_of(dim):
            frequency, amplitude = rope_frequencies(c, dim)
            return positions[:, None] * frequency, amplitude

        x = self.keep("embed", self.weights["model.embed_tokens.weight"][torch.as_tensor(ids)])
        mix = self.mla if c["model_type"] in MLA_FAMILIES else self.gqa
        for layer in range(c["num_hidden_layers"]):
            at = f"model.layers.{layer}."
            x = self.keep(at + "after_attention", x + mix(at + "self_attn.", self.norm(at + "input_layernorm", x), angles_of, self.unseen(layer, future)))
            feed = self.moe if self.is_moe(layer) else self.mlp
            x = self.keep(at + "after_mlp", x + feed(at + "mlp.", self.norm(at + "post_attention_layernorm", x)))
        x = self.keep("norm", self.norm("model.norm", x))
        head = "model.embed_tokens.weight" if c.get("tie_word_embeddings") else "lm_head.weight"
        return F.linear(x, self.weights[head])

    @torch.no_grad()
    def draft(self, ids):
        """[rows - 1, vocab]: row i is the draft layer's guess at token i + 2, from the state of row i and token i + 1. Embedding and head are the model's."""
        c, rows, at = self.config, len(ids) - 1, f"model.layers.{self.config['num_hidden_layers']}."
        positions = torch.arange(rows, dtype=torch.float64)
        future = torch.ones(rows, rows, dtype=torch.bool).triu(1)

        def angles_of(dim):
            frequency, amplitude = rope_frequencies(c, dim)
            return positions[:, None] * frequency, amplitude

        self.logits(ids)
        token = self.norm(at + "enorm", self.weights["model.embed_tokens.weight"][torch.as_tensor(ids[1:])])
        x = self.linear(at + "eh_proj", torch.cat((token, self.norm(at + "hnorm", self.trace["norm"][:-1])), -1))
        x = x + self.mla(at + "self_attn.", self.norm(at + "input_layernorm", x), angles_of, future)
        x = x + self.moe(at + "mlp.", self.norm(at + "post_attention_layernorm", x))
        return F.linear(self.norm(at + "shared_head.norm", x), self.weights["lm_head.weight"])

    def greedy(self, prompt, count):
        """The next `count` tokens, and the smallest gap between the first and the second choice along the way."""
        ids, smallest = list(prompt), math.inf
        for _ in range(count):
            best = self.logits(ids)[-1].topk(2)
            smallest = min(smallest, (best.values[0] - best.values[1]).item())
            ids.append(best.indices[0].item())
        return ids[len(prompt) :], smallest
