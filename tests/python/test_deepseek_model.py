"""hadal.DeepSeekModel: the names that users of transformers know."""

import textwrap

import numpy as np
import pytest
from test_package import path  # noqa: F401


@pytest.fixture
def deepseek(package, path):
    model = package.DeepSeekModel.from_pretrained(path)
    yield model
    model.engine.close()


def test_the_articles_snippet(package, path, tmp_path, monkeypatch):
    """As printed, but for the import: from transformers import DeepSeekModel."""
    article = textwrap.dedent("""
        from hadal import DeepSeekModel
        model = DeepSeekModel.from_pretrained("deepseek/v1")
        model.config.attention_window = 512 # 设置滑动窗口大小
    """)
    (tmp_path / "deepseek").mkdir()
    (tmp_path / "deepseek" / "v1").symlink_to(path)
    monkeypatch.setenv("HADAL_CACHE", str(tmp_path))
    names = {}
    exec(article, names)
    ids = (np.arange(600) % 250).tolist()
    with package.load(path, attention_window=512) as windowed, package.load(path) as full:
        logits = names["model"](ids).logits
        np.testing.assert_array_equal(logits[0], windowed.logits(ids))
        assert not np.array_equal(logits[0], full.logits(ids))


def test_a_name_that_is_not_here(package, tmp_path, monkeypatch):
    monkeypatch.setenv("HADAL_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    for name, options, expected in [
        ("deepseek/v1", {"local_files_only": True}, ["`hadal pull deepseek-ai/deepseek-coder-1.3b-instruct`", f"{tmp_path}/deepseek/v1"]),
        ("deepseek/v1", {}, ["the hub (", 'hadal.pull("deepseek-ai/deepseek-coder-1.3b-instruct")']),
        ("owner/name", {"local_files_only": True}, ["`hadal pull owner/name`", "tried the path"]),
        ("nonsense", {}, ['there is no model "nonsense" here']),
    ]:
        with pytest.raises(package.Error) as error:
            package.DeepSeekModel.from_pretrained(name, **options)
        for text in expected:
            assert text in str(error.value)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(package.Error) as error:
        package.DeepSeekModel.from_pretrained("deepseek/v2")
    assert "and the hub" not in str(error.value) and "DeepSeek-V2-Lite-Chat" in str(error.value)


def test_generate_as_transformers_has_it(deepseek):
    engine, prompt = deepseek.engine, [1, 2, 3]
    greedy = engine.generate(prompt, max_tokens=6, temperature=0).ids
    out = deepseek.generate([prompt], max_new_tokens=6, do_sample=False)
    assert isinstance(out, np.ndarray) and out.dtype == np.int64 and out.tolist() == [prompt + greedy]
    assert deepseek.generate(np.array(prompt), max_length=9).tolist() == [prompt + greedy]
    other = engine.generate([7, 8], max_tokens=6, temperature=0).ids
    ragged = deepseek.generate([prompt, [7, 8]], max_new_tokens=6, pad_token_id=0)
    assert ragged.tolist() == [prompt + greedy, [7, 8, *other, 0]]
    padded = deepseek.generate(np.array([prompt, [0, 7, 8]]), attention_mask=np.array([[1, 1, 1], [0, 1, 1]]), max_new_tokens=6)
    assert padded.tolist() == [prompt + greedy, [0, 7, 8, *other]]
    ended = deepseek.generate([prompt], max_new_tokens=6, eos_token_id=greedy[1])
    assert ended.tolist() == [prompt + greedy[: greedy.index(greedy[1]) + 1]], "with its end token, as in transformers"
    drawn = deepseek.generate([prompt], max_new_tokens=12, do_sample=True, temperature=3.0, num_return_sequences=3, seed=5)
    assert drawn.shape[0] == 3 and len({tuple(row) for row in drawn.tolist()}) == 3
    assert np.array_equal(drawn[1], deepseek.generate([prompt], max_new_tokens=12, do_sample=True, temperature=3.0, seed=6)[0])

    class Streamer:
        got, ended = [], False

        def put(self, ids):
            self.got += np.ravel(ids).tolist()

        def end(self):
            self.ended = True

    streamer = Streamer()
    deepseek.generate([prompt], max_new_tokens=6, streamer=streamer)
    assert streamer.got == prompt + greedy and streamer.ended


def test_forward_gives_logits(deepseek):
    rows = [[1, 2, 3], [4, 5, 6]]
    out = deepseek(rows)
    assert out.logits.shape == (2, 3, 300) and out["logits"] is out[0] is out.logits
    for row, logits in zip(rows, out.logits):
        np.testing.assert_array_equal(logits, deepseek.engine.logits(row))
    masked = deepseek(np.array([[0, 4, 5]]), attention_mask=[[0, 1, 1]]).logits
    np.testing.assert_array_equal(masked[0, 1:], deepseek.engine.logits([4, 5]))
    assert not masked[0, 0].any()
    assert deepseek.config.vocab_size == 300 and deepseek.config.num_hidden_layers == 3 and deepseek.eval().to("cpu") is deepseek


def test_torch_tensors_come_back_as_such(deepseek):
    torch = pytest.importorskip("torch")
    ids = torch.tensor([[1, 2, 3]])
    out = deepseek.generate(ids, max_new_tokens=4)
    assert out.dtype == torch.int64 and out.shape == (1, 7)
    logits = deepseek(ids).logits
    assert logits.dtype == torch.float32 and logits.argmax(-1)[0, -1] == out[0, 3]


def test_what_deepseek_model_refuses(package, deepseek, path):
    said = [
        (lambda: package.DeepSeekModel.from_pretrained(path, device_map="cuda"), "device_map: expected"),
        (lambda: deepseek.to("cuda"), 'expected "cpu"'),
        (lambda: deepseek.generate([[1]], num_beams=4), "num_beams: expected 1"),
        (lambda: deepseek.generate([[1, 2]], attention_mask=[[1, 0]]), "expected padding in front"),
        (lambda: deepseek.generate([[1, 2]], attention_mask=[[1, 1, 1]]), "expected the shape of input_ids"),
        (lambda: deepseek.generate([[]]), "expected at least one token in each row"),
        (lambda: deepseek([[1], [1, 2]]), "expected rows of one length"),
    ]
    for what, message in said:
        with pytest.raises(package.Error) as error:
            what()
        assert message in str(error.value), str(error.value)
    with pytest.raises(TypeError, match="unexpected keyword"):
        package.DeepSeekModel.from_pretrained(path, wieghts="w8")
