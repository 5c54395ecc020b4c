"""One peer in a process of its own: reads one request a line, answers one line of JSON. Started by peers.py.

  worker.py llama    MODEL.gguf THREADS '{"repack": true}'
  worker.py openvino MODEL.gguf THREADS '{"backend": "PA"}'

A request is {"test": "prefill" | "decode", "tokens", "depth", "batch", ...how}; the answer {"seconds"} of the whole call or {"error"}. A request
{"test": "memory"} answers {"bytes"}: the most this process ever held. The first line written is {"ready": seconds}: from the import of the peer's
library to its first token behind eight tokens, that is without Python's own start.
"""

import json
import os
import random
import re
import sys
import time


def any_tokens(count, text=0):
    draw = random.Random(f"{count} {text}")
    return [draw.randrange(10, 30000) for _ in range(count)]


class Llama:
    """llama.cpp through the C functions of llama-cpp-python: nothing of Python lies between two tokens but the calls."""

    PAGE = 512  # tokens that are computed to fill a depth; the rest of it are copies of their keys and values

    def __init__(self, model, threads, how):
        import llama_cpp

        self.api, self.threads, self.context, self.made_for = llama_cpp, threads, None, None
        self.quiet = llama_cpp.llama_log_callback(lambda *_: None)
        llama_cpp.llama_log_set(self.quiet, None)
        llama_cpp.llama_backend_init()
        params = llama_cpp.llama_model_default_params()
        params.use_extra_bufts = how["repack"]
        self.model = llama_cpp.llama_model_load_from_file(model.encode(), params)
        if not self.model:
            raise RuntimeError("the model does not load")
        self.make_context(64, 1, {"flash": True, "cache": "f16"})
        self.feed([(any_tokens(8), 0, 0)])

    def make_context(self, rows, sequences, how, unified=False):
        key = (rows, sequences, how["flash"], how["cache"], unified)
        if self.made_for == key:
            return self.api.llama_memory_clear(self.memory, True)
        if self.context:
            self.api.llama_free(self.context)
        p = self.api.llama_context_default_params()
        p.n_ctx, p.n_batch, p.n_ubatch, p.n_seq_max, p.kv_unified = rows, 2048, 512, sequences, unified
        p.n_threads = p.n_threads_batch = self.threads
        p.flash_attn_type = int(how["flash"])
        p.type_k = p.type_v = {"f16": self.api.GGML_TYPE_F16, "q8_0": self.api.GGML_TYPE_Q8_0}[how["cache"]]
        self.context = self.api.llama_init_from_model(self.model, p)
        if not self.context:
            self.made_for = None
            raise RuntimeError("no such context")
        self.memory, self.made_for = self.api.llama_get_memory(self.context), key

    def feed(self, parts, wanted=True):
        """One pass over parts (tokens, first position, sequence); the last row of each part is wanted."""
        rows = sum(len(tokens) for tokens, _, _ in parts)
        batch = self.api.llama_batch_init(rows, 0, 1)
        for tokens, position, sequence in parts:
            for i, token in enumerate(tokens):
                at = batch.n_tokens
                batch.token[at], batch.pos[at], batch.n_seq_id[at], batch.seq_id[at][0] = token, position + i, 1, sequence
                batch.logits[at] = wanted and i == len(tokens) - 1
                batch.n_tokens += 1
        code = self.api.llama_decode(self.context, batch)
        self.api.llama_synchronize(self.context)
        self.api.llama_batch_free(batch)
        if code != 0:
            raise RuntimeError(f"llama_decode says {code}")

    def prefill(self, count):
        tokens = any_tokens(count)
        for at in range(0, count, 2048):
            self.feed([(tokens[at : at + 2048], at, 0)], wanted=at + 2048 >= count)

    def fill(self, depth):
        """Sequence 0 sees `depth` rows: one page is computed and loaded again and again, under the same positions."""
        self.prefill(min(depth, self.PAGE))
        size = self.api.llama_state_seq_get_size(self.context, 0)
        state = (self.api.ctypes.c_uint8 * size)()
        self.api.llama_state_seq_get_data(self.context, state, size, 0)
        for _ in range(depth // self.PAGE - 1):
            if self.api.llama_state_seq_set_data(self.context, state, size, 1) == 0:
                raise RuntimeError("the state does not load")
            self.api.llama_memory_seq_cp(self.memory, 1, 0, -1, -1)
            self.api.llama_memory_seq_rm(self.memory, 1, -1, -1)

    def measure(self, test, tokens, depth, batch, **how):
        if test == "prefill":
            self.make_context(max(512, tokens), 1, how)
            start = time.perf_counter()
            self.prefill(tokens)
            return time.perf_counter() - start
        if depth > 0:
            if batch != 1 or (depth > self.PAGE and depth % self.PAGE):
                raise RuntimeError(f"a depth is one sequence and a multiple of {self.PAGE} tokens")
            self.make_context(depth + self.PAGE, 2, how, unified=True)
            self.fill(depth)
        else:
            self.make_context(256 * batch, batch, how)
        at = min(depth, self.PAGE)
        draw = any_tokens((tokens + 1) * batch)
        step = lambda i: self.feed([([draw[i * batch + s]], at + i, s) for s in range(batch)])  # noqa: E731
        step(0)  # the first finds cold caches
        start = time.perf_counter()
        for i in range(1, tokens + 1):
            step(i)
        return time.perf_counter() - start


class OpenVino:
    """OpenVINO GenAI's own pipeline; a decode is timed from the first token handed over to the end of the call."""

    def __init__(self, model, threads, how):
        import openvino
        import openvino_genai

        self.api, self.tensor = openvino_genai, openvino.Tensor
        self.prefills = 0
        self.pipe = openvino_genai.LLMPipeline(model, "CPU", ATTENTION_BACKEND=how["backend"], INFERENCE_NUM_THREADS=threads)
        self.generate([any_tokens(8)], 1)

    def generate(self, prompts, tokens):
        import numpy

        ids = numpy.array(prompts, numpy.int64)
        config = self.api.GenerationConfig()
        config.max_new_tokens, config.ignore_eos, config.do_sample, config.apply_chat_template = tokens, True, False, False
        first = []

        def handed_over(_):
            first.append(time.perf_counter())
            return self.api.StreamingStatus.RUNNING

        streamer = Streamer(self.api, handed_over) if len(prompts) == 1 else None
        start = time.perf_counter()
        inputs = self.api.TokenizedInputs(self.tensor(ids), self.tensor(numpy.ones_like(ids)))
        self.pipe.generate(inputs, config, streamer) if streamer else self.pipe.generate(inputs, config)
        end = time.perf_counter()
        return end - start, end - first[0] if first else None

    def measure(self, test, tokens, depth, batch, **_):
        if test == "prefill":
            self.prefills += 1  # each reads a text of its own: the pipeline keeps what it has read
            return self.generate([any_tokens(tokens, self.prefills)], 1)[0]
        if batch == 1:
            return self.generate([any_tokens(max(depth, 1))], tokens + 1)[1]
        prompts = [any_tokens(max(depth, 1) + i)[-max(depth, 1) :] for i in range(batch)]
        return self.generate(prompts, tokens + 1)[0] - self.generate(prompts, 1)[0]


def Streamer(api, handed_over):
    class Watch(api.StreamerBase):
        def write(self, token):
            return handed_over(token)

        def end(self):
            pass

    return Watch()


def main():
    peer, model, threads, how = sys.argv[1], sys.argv[2], int(sys.argv[3]), json.loads(sys.argv[4])
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a library prints is no answer
    try:
        start = time.perf_counter()
        engine = {"llama": Llama, "openvino": OpenVino}[peer](model, threads, how)
        answers.write(json.dumps({"ready": time.perf_counter() - start}) + "\n")
    except Exception as problem:
        answers.write(json.dumps({"error": str(problem)}) + "\n")
        return
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if request["test"] == "memory":
                held = re.search(r"VmHWM:\s+(\d+) kB", open("/proc/self/status").read())
                answer = {"bytes": int(held[1]) * 1024}
            else:
                answer = {"seconds": engine.measure(**request)}
        except Exception as problem:
            answer = {"error": str(problem)}
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
