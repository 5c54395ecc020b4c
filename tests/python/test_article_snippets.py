"""What the article prints, but for the import, on hadal.torch; docs/pytorch.md says what is wrong in each."""

import pytest
from conftest import GOLDEN, read_golden
from test_torch import assert_near, batch, hadal_torch, make  # noqa: F401

torch = pytest.importorskip("torch", reason="hadal.torch needs torch (requirements-dev.txt)")


def test_the_window_as_printed(hadal_torch, make, tmp_path, monkeypatch):
    article = """
from hadal.torch import DeepSeekModel
model = DeepSeekModel.from_pretrained("deepseek/v1")
model.config.attention_window = 512 # 设置滑动窗口大小
"""
    (tmp_path / "deepseek").mkdir()
    (tmp_path / "deepseek" / "v1").symlink_to(read_golden(GOLDEN / "llama").model)
    monkeypatch.setenv("HADAL_CACHE", str(tmp_path))
    names = {}
    exec(article, names)
    ids = (torch.arange(600) % 250).unsqueeze(0)
    with torch.no_grad():
        windowed = names["model"](ids).logits
        assert torch.equal(windowed, make("llama", attention_window=512)(ids).logits)
        full = make("llama")(ids).logits
    assert_near(windowed[:, :512], full[:, :512], "what the window does not reach")
    assert not torch.allclose(windowed[:, 520:], full[:, 520:])


BALANCE_LOSS = """
def compute_load_balance_loss(router_weights):
    expert_load = router_weights.mean(dim=0)
    balance_loss = (expert_load - 1.0/num_experts).pow(2).mean()
    return 0.1 * balance_loss # 系数需根据任务调整
"""


def test_the_balance_loss_as_printed(make, batch):
    ids, labels = batch
    model = make("deepseek_v2_lite")
    names = {"num_experts": model.config.experts}  # which the article leaves undefined
    exec(BALANCE_LOSS, names)
    loss = names["compute_load_balance_loss"]
    out = model(ids, labels=labels, output_router_logits=True)
    (out.loss + sum(loss(routing.scores) for routing in out.routings)).backward()
    with_loss = model.model.layers[1].mlp.gate.weight.grad
    other = make("deepseek_v2_lite")
    other(ids, labels=labels).loss.backward()
    without = other.model.layers[1].mlp.gate.weight.grad
    assert 0 < (with_loss - without).abs().max() < 0.05 * without.abs().max(), "it does something, and little"
    # Nine tokens of ten go to the first expert, and it sees nothing wrong.
    names["num_experts"] = 2
    scores = torch.tensor([[0.55, 0.45]] * 9 + [[0.05, 0.95]])
    assert scores.argmax(-1).bincount().tolist() == [9, 1] and loss(scores) < 1e-12
    names["num_experts"] = 8  # an expert with 30 % too much
    scores = torch.tensor([[0.1625] + [0.8375 / 7] * 7])
    assert loss(scores) < 2.1e-5


CONTRASTIVE_LOSS = """
def contrastive_loss(text_feat, image_feat, temperature=0.1):
    logits = torch.matmul(text_feat, image_feat.T) / temperature
    labels = torch.arange(len(text_feat), device=text_feat.device)
    return F.cross_entropy(logits, labels)
"""


def test_the_contrastive_loss_as_printed(make, batch):
    names = {"torch": torch, "F": torch.nn.functional}
    exec(CONTRASTIVE_LOSS, names)
    loss = names["contrastive_loss"]
    model, images = make("llama"), torch.randn(2, 30, generator=torch.Generator().manual_seed(1))
    text = model(batch[0], output_hidden_states=True).hidden_states[-1][:, -1]
    loss(text, images).backward()
    assert model.model.layers[0].self_attn.q_proj.weight.grad.abs().max() > 0
    text = 0.05 * text.detach()  # where the softmax is not saturated
    assert not torch.isclose(loss(text, images), loss(images, text)), "one direction only"
    assert not torch.isclose(loss(text, images), loss(2 * text, images)), "it can be lowered by longer vectors"
