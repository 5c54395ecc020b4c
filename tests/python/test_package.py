"""The Python package: numbers are those of the program, many requests run as one, and whoever leaves costs nothing more."""

import asyncio
import json
import sys
import threading

import numpy as np
import pytest
from conftest import GOLDEN, TEMPLATE, copy_of, read_golden

FAMILIES = ("llama", "deepseek_v2_lite", "deepseek_v3", "gguf_llama_q4_0", "gguf_qwen2", "gguf_deepseek2_lite")
ENDLESS = {"logit_bias": {65: 100, 299: -100}, "max_tokens": 4000, "temperature": 0}  # 65 is "A", 299 the end


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return copy_of(
        tmp_path_factory.mktemp("package") / "chatty", read_golden(GOLDEN / "llama").model, TEMPLATE, max_position_embeddings=8192
    )


@pytest.fixture(scope="module")
def model(package, path):
    with package.load(path) as model:
        yield model


def program_ids(hadal, model, ids, *options):
    done = hadal.run("generate", model, "--prompt-ids", ",".join(map(str, ids)), "--ids", *options)
    return [int(id) for id in done.stdout.strip().split(",") if id]


@pytest.mark.parametrize("family", FAMILIES)
def test_numbers_are_those_of_the_program(hadal, package, family, tmp_path):
    golden = read_golden(GOLDEN / family)
    with package.load(golden.model) as model:
        logits = model.logits(golden.ids)
        assert logits.dtype == np.float32 and logits.shape == (len(golden.ids), model.config.vocab)
        np.testing.assert_array_equal(logits, hadal.logits(golden.model, golden.ids, tmp_path))
        reply = model.generate(golden.ids, max_tokens=16, temperature=0)
        assert reply.ids == program_ids(hadal, golden.model, golden.ids, "--max-tokens", 16, "--temperature", 0)
        assert reply.prompt_tokens == len(golden.ids)


def test_sampling_is_that_of_the_program(hadal, model, path):
    how = {
        "temperature": 0.9,
        "top_k": 40,
        "top_p": 0.9,
        "min_p": 0.01,
        "repeat_penalty": 1.1,
        "presence_penalty": 0.2,
        "frequency_penalty": 0.1,
        "seed": 7,
    }
    options = [text for name, value in how.items() for text in (f"--{name.replace('_', '-')}", value)]
    reply = model.generate([1, 2, 3], max_tokens=24, logit_bias={70: 1.5}, **how)
    assert reply.ids == program_ids(hadal, path, [1, 2, 3], "--max-tokens", 24, "--logit-bias", "70=1.5", *options)
    assert reply.seed == 7
    again = model.generate([1, 2, 3], max_tokens=24, temperature=2)
    assert model.generate([1, 2, 3], max_tokens=24, temperature=2, seed=again.seed) == again, "a reply tells the seed it was drawn with"


def test_packed_weights_and_cache(hadal, package, tmp_path):
    golden = read_golden(GOLDEN / "llama")
    with package.load(golden.model, weights="w8", cache="i8", keep={"*.o_proj.weight": "f32"}) as model:
        options = ("--weights", "w8", "--keep", "*.o_proj.weight=f32", "--cache", "i8")
        np.testing.assert_array_equal(model.logits(golden.ids), hadal.logits(golden.model, golden.ids, tmp_path, *options))


def test_pieces_make_the_reply(package, model):
    whole = model.generate("the thing", max_tokens=40, temperature=0, logprobs=2)
    stream = model.stream("the thing", max_tokens=40, temperature=0)
    pieces = list(stream)
    assert "".join(pieces) == whole.text == str(whole) and all(isinstance(piece, str) for piece in pieces)
    assert [id for piece in pieces for id in piece.ids] == whole.ids[: sum(len(piece.ids) for piece in pieces)]
    assert stream.reply.ids == whole.ids and stream.reply.finish == whole.finish and stream.ended
    assert [tokens[0][0] for tokens in whole.logprobs] == whole.ids and all(len(tokens) == 3 for tokens in whole.logprobs)
    logits = model.logits([*model.tokenizer.encode("the thing", begin=True), *whole.ids])
    row = logits[whole.prompt_tokens - 1].astype(np.float64)
    expected = row[whole.ids[0]] - np.log(np.exp(row - row.max()).sum()) - row.max()
    assert abs(whole.logprobs[0][0][1] - expected) < 1e-4


def test_a_stop_text_ends_the_reply(model):
    reply = model.generate([1, 2], stop="AAA", **ENDLESS)
    assert (reply.text, reply.finish, len(reply.ids)) == ("", "stop", 3)
    assert model.generate([1, 2], stop=["x", "AAAA"], **ENDLESS).ids == [65] * 4
    assert model.generate([1, 2], stop_tokens=[65], **ENDLESS).ids == []


def test_a_chat_goes_through_the_template(hadal, model, path):
    messages = [{"role": "user", "content": [{"type": "text", "text": "the "}, {"type": "text", "text": "thing"}]}]
    assert model.tokenizer.apply_chat_template(messages, tokenize=False) == "user: the thing\nassistant:"
    reply = model.chat(messages, max_tokens=24, temperature=0)
    alone = json.loads(hadal.run("generate", path, "-p", "the thing", "--max-tokens", 24, "--temperature", 0, "--json").stdout)
    assert (reply.text, reply.ids, reply.finish) == (alone["text"], alone["ids"], alone["finish"])
    assert "".join(model.chat(messages, stream=True, max_tokens=24, temperature=0)) == reply.text
    assert reply.message == {"role": "assistant", "content": reply.text}


def test_nobody_speaks_in_anothers_name(model):
    """A message that spells a control token out is text."""
    end = model.tokenizer.piece(299).decode()
    assert model.tokenizer.encode(end).tolist() == [299]
    ids = model.tokenizer.apply_chat_template([{"role": "user", "content": f"a{end}b"}])
    assert 299 not in ids and model.tokenizer.decode(ids) == f"user: a{end}b\nassistant:"
    with_it = model.chat([{"role": "user", "content": f"a{end}b"}], max_tokens=4, temperature=0)
    assert with_it.ids == model.generate(ids, max_tokens=4, temperature=0).ids and with_it.prompt_tokens == len(ids)


def test_reasoning_is_apart(package, tmp_path):
    thinking = copy_of(tmp_path / "thinking", read_golden(GOLDEN / "llama").model, TEMPLATE + "<think>\n")
    with package.load(thinking) as model:
        stream = model.chat([{"role": "user", "content": "x"}], stream=True, max_tokens=5, temperature=0, logit_bias={65: 100})
        assert all(piece.reasoning for piece in stream)
        assert (stream.reply.reasoning, stream.reply.text) == ("AAAAA", "")
        assert stream.reply.message["reasoning_content"] == "AAAAA"


def test_tokens_and_texts(hadal, model, path):
    text = "The quick brown fox: 3.14 – naïve 你好 👍"
    ids = model.tokenizer.encode(text)
    assert ids.dtype == np.int32 and model.tokenizer.decode(ids) == text
    told = json.loads(hadal.run("tokenize", path, "-p", text, "--json").stdout)
    assert told["ids"][-len(ids) :] == ids.tolist()
    assert model.tokenizer.decode(model.tokenizer.encode("👍")[:1]) == "\N{REPLACEMENT CHARACTER}", "half a character"
    assert len(model.tokenizer) <= model.config.vocab and model.tokenizer.find("A") == 65 and model.tokenizer.piece(65) == b"A"


def test_many_at_once_are_each_alone(model):
    """Eight streams of one loop, computed together, each as it would be alone."""
    asked = [([i + 1, 2 * i + 3, 5], {"max_tokens": 20 + i, "temperature": i / 4, "seed": i}) for i in range(8)]
    alone = [model.generate(ids, **how) for ids, how in asked]

    async def one(ids, how):
        stream = model.stream_async(ids, **how)
        pieces = [piece async for piece in stream]
        assert "".join(pieces) == stream.reply.text
        return stream.reply

    async def all_of_them():
        return await asyncio.gather(*(one(*ask) for ask in asked))

    assert asyncio.run(all_of_them()) == alone
    batch = [reply.ids for reply in model.generate([ids for ids, _ in asked], max_tokens=12, temperature=0)]
    assert batch == [model.generate(ids, max_tokens=12, temperature=0).ids for ids, _ in asked]


def test_a_crowd_is_computed_together(package, path):
    """With room for all, a short request overtakes a long one that began before it."""
    with package.load(path) as model:

        async def crowd():
            long = model.stream_async([1, 2], **ENDLESS)
            await anext(long)
            short = await model.generate_async([3, 4], max_tokens=3, temperature=0, stop_tokens=[])
            assert len(short.ids) == 3 and not long.ended and len(long.reply.ids) < 4000
            await long.aclose()
            assert long.reply.finish == "cancelled"

        asyncio.run(crowd())


@pytest.mark.parametrize("how", ["close", "break", "cancel", "forget"])
def test_who_leaves_frees_the_room(package, path, how):
    """The cache has room for one such reply: another begins only when the first has ended."""
    with package.load(path, context=4096, replies=1) as model:

        async def leave():
            stream = model.stream_async([1, 2], **ENDLESS)
            if how == "close":
                await anext(stream)
                await stream.aclose()
                assert [piece async for piece in stream] == []
            elif how == "break":
                async for _ in model.stream_async([1, 2], **ENDLESS):
                    break
                await stream.aclose()
            elif how == "cancel":
                task = asyncio.create_task(stream.read())
                await asyncio.sleep(0.05)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            del stream
            reply = await model.generate_async([5], max_tokens=3, temperature=0, stop_tokens=[])
            assert len(reply.ids) == 3

        asyncio.run(leave())
        stream = model.stream([1, 2], **ENDLESS)
        next(stream)
        if how == "close":
            stream.close()
        elif how == "break":
            with stream:
                pass
        del stream
        assert len(model.generate([5], max_tokens=3, temperature=0, stop_tokens=[]).ids) == 3


def test_other_threads_run_meanwhile(model):
    """Python's lock is free while tokens are computed: a thread that needs it gets it, though nobody is made to give it up."""

    def counts_during(work, most=1):
        go, counted = threading.Event(), []

        def count():
            go.wait()
            for i in range(1000):
                counted.append(i)

        thread = threading.Thread(target=count)
        thread.start()
        switch = sys.getswitchinterval()
        sys.setswitchinterval(1000)  # from here on this thread keeps the lock until it gives it up by itself, and so does the other
        try:
            go.set()
            for _ in range(most):  # a busy machine may wake the other thread late
                work()
                if counted:
                    break
            return len(counted)
        finally:
            sys.setswitchinterval(switch)
            thread.join()

    assert counts_during(lambda: sum(range(1000))) == 0, "the test sees who does not give it up"
    assert counts_during(lambda: model.logits(np.arange(1000) % 256), 1000) == 1000
    assert counts_during(lambda: model.generate([1, 2], **ENDLESS | {"max_tokens": 100}), 1000) == 1000


def test_threads_share_a_model(model):
    alone = model.generate([1, 2, 3], max_tokens=30, temperature=0)
    logits = model.logits([1, 2, 3])
    wrong = []

    def one(i):
        reply = model.generate([1, 2, 3], max_tokens=30, temperature=0, seed=alone.seed)
        if reply != alone or not np.array_equal(model.logits([1, 2, 3]), logits):
            wrong.append(i)

    threads = [threading.Thread(target=one, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_errors_say_what_was_expected(package, model, path, tmp_path):
    assert issubclass(package.Error, ValueError)
    said = [
        (lambda: package.load(tmp_path / "none"), "there is no model"),
        (lambda: package.load(path, weights="w5"), "w8"),
        (lambda: package.load(path, cache="f64"), "cache: expected i8, f16 or f32"),
        (lambda: package.load(path, draft="mtp"), "no draft layer"),
        (lambda: package.load(path, context=0), "context: expected a whole number of 1 or more, found 0"),
        (lambda: package.load(path, keep={"*": "w8"}), "expected weights beside it"),
        (lambda: package.load(path, threads=1000), "threads: a model of this process computes with"),
        (lambda: model.generate([]), "the prompt is empty"),
        (lambda: model.generate([5000]), "token 5000 is out of range"),
        (lambda: model.generate([-1]), "expected token ids of 0 or more, found -1"),
        (lambda: model.generate([1.5]), "expected whole numbers"),
        (lambda: model.generate([1] * 9000), "the prompt is too long"),
        (lambda: model.generate("x", temperature=-1), "temperature"),
        (lambda: model.generate("x", temperature="hot"), "temperature: expected a number, found 'hot'"),
        (lambda: model.generate("x", max_tokens=0), "max_tokens: expected 1 or more, found 0"),
        (lambda: model.generate("x", max_tokens=2.5), "max_tokens: expected a whole number"),
        (lambda: model.generate("x", temprature=1), "there is no option temprature"),
        (lambda: model.chat("hello"), "messages: expected a list like"),
        (lambda: model.chat([{"content": "x"}]), "messages: expected entries like"),
        (lambda: model.chat([{"role": "user", "content": [{"type": "image_url"}]}]), "content: expected a text or parts like"),
        (lambda: model.logits([[1, 2]]), "in one dimension"),
        (lambda: model.logits([300]), "out of range"),
        (lambda: model.logits([]), "at least one"),
        (lambda: model.tokenizer.decode([70000]), "out of range"),
        (lambda: setattr(model.config, "attention_window", 0), "attention_window: expected a whole number of 1 or more"),
        (lambda: setattr(model.config, "attention_sinks", 4), "window"),
    ]
    for what, message in said:
        with pytest.raises(package.Error) as error:
            what()
        assert message in str(error.value), str(error.value)
    with pytest.raises(AttributeError, match="as the model was trained"):
        model.config.layers = 3
    with pytest.raises(AttributeError, match="a config has no atention_window"):
        model.config.atention_window = 3
    assert len(model.generate([1], max_tokens=2, temperature=0).ids) == 2, "none of it did harm"
    with package.load(GOLDEN / "llama" / "model") as base, pytest.raises(package.Error, match="no chat template"):
        base.chat([{"role": "user", "content": "x"}])


def test_a_closed_model_says_so(package, path):
    model = package.load(path)
    stream = model.stream([1, 2], **ENDLESS)
    next(stream)
    model.close()
    with pytest.raises(package.Error, match="was closed"):
        stream.read()
    with pytest.raises(package.Error, match="closed"):
        model.generate([1], max_tokens=2)


def test_the_window_takes_effect(hadal, package, path, tmp_path):
    ids = (np.arange(300) * 7 % 250 + 1).tolist()
    with package.load(path) as model:
        full = model.logits(ids)
        running = model.stream(ids, **ENDLESS)
        next(running)
        model.config.attention_window = 64
        assert model.config.attention_window == 64
        narrow = model.logits(ids)
        np.testing.assert_array_equal(narrow, hadal.logits(path, ids, tmp_path, "--attention-window", 64))
        np.testing.assert_array_equal(narrow[:64], full[:64])
        assert np.abs(narrow[200:] - full[200:]).max() > 1e-3
        model.config.attention_sinks = 4
        np.testing.assert_array_equal(
            model.logits(ids), hadal.logits(path, ids, tmp_path, "--attention-window", 64, "--attention-sinks", 4)
        )
        how = ("--max-tokens", 20, "--temperature", 0)
        assert model.generate(ids, max_tokens=20, temperature=0).ids == program_ids(
            hadal, path, ids, "--attention-window", 64, "--attention-sinks", 4, *how
        )
        next(running)  # it goes on as it began
        running.close()
        model.config.attention_sinks = None
        model.config.attention_window = None
        np.testing.assert_array_equal(model.logits(ids), full)
    with package.load(path, attention_window=64) as model:
        np.testing.assert_array_equal(model.logits(ids), narrow)
