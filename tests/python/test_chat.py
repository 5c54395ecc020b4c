"""hadal chat on a terminal and through a pipe."""

import contextlib
import json
import os
import pty
import select
import signal
import subprocess
import time

import pytest
from conftest import TEMPLATE, copy_of

GREEDY = ("--temperature", 0)
ALWAYS_A = ("--logit-bias", "65=1000")
pytestmark = pytest.mark.usefixtures("cache")


class Terminal:
    """A chat on a terminal of its own."""

    def __init__(self, hadal, *arguments):
        self.pid, self.file = pty.fork()
        if self.pid == 0:
            os.execv(hadal.program, [str(hadal.program), "chat", *map(str, arguments)])
        self.seen = ""

    def expect(self, text, seconds=30):
        """Waits for `text` and returns all up to its end."""
        until = time.monotonic() + seconds
        while text not in self.seen:
            assert time.monotonic() < until, f"waited for {text!r}, saw {self.seen[-2000:]!r}"
            if select.select([self.file], [], [], 0.1)[0]:
                try:
                    read = os.read(self.file, 65536)
                except OSError:  # the other side is closed
                    read = b""
                assert read, f"ended before {text!r}, saw {self.seen[-2000:]!r}"
                self.seen += read.decode(errors="replace")
        at = self.seen.index(text) + len(text)
        before, self.seen = self.seen[:at], self.seen[at:]
        return before

    def send(self, text):
        os.write(self.file, text.encode())

    def press(self, keys, text, seconds=30):
        """Sends `keys` until `text` shows: the editor drops what is typed while it takes over the terminal."""
        for _ in range(seconds):
            self.send(keys)
            with contextlib.suppress(AssertionError):
                return self.expect(text, 1)
        pytest.fail(f"waited for {text!r}, saw {self.seen[-2000:]!r}")

    def leave(self, seconds=30):
        """Ctrl-U and Ctrl-D until the program ends: the editor drops what is typed while it takes over the terminal."""
        for _ in range(seconds):
            with contextlib.suppress(OSError):  # it has just ended
                self.send("\x15\x04")
            with contextlib.suppress(TimeoutError):
                return self.ends(1)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        pytest.fail(f"still there; saw {self.seen[-2000:]!r}")

    def ends(self, seconds=30):
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if select.select([self.file], [], [], 0.05)[0]:
                try:
                    self.seen += os.read(self.file, 65536).decode(errors="replace")
                except OSError:
                    pass
            done, status = os.waitpid(self.pid, os.WNOHANG)
            if done:
                os.close(self.file)
                return os.waitstatus_to_exitcode(status)
        raise TimeoutError(f"still there; saw {self.seen[-2000:]!r}")


def test_a_talk(hadal, chatty, tmp_path, cache):
    chat = Terminal(hadal, chatty, "--max-tokens", 5, *GREEDY, *ALWAYS_A)
    chat.expect("/help lists the commands")
    chat.expect("> ")
    chat.send("hello\n")
    chat.expect("AAAAA")
    chat.expect("(cut after --max-tokens 5)")
    chat.send("/stats\n")
    chat.expect("finish: length")
    chat.expect("context: ")
    chat.send("/retry\n")
    chat.expect("AAAAA")
    chat.send("/system Be brief.\n")
    chat.expect("System message set")
    chat.send(f"/save {tmp_path}/talk.json\n")
    chat.expect("Saved 3 messages")
    chat.send("/nonsense\n")
    chat.expect("There is no command /nonsense: /help lists them.")
    chat.send("/help\n")
    chat.expect("/retry ")
    chat.send("/reset\n")
    chat.expect("The talk starts anew.")
    chat.send("/retry\n")
    chat.expect("There is nothing to answer yet.")
    chat.send(f"/load {tmp_path}/absent.json\n")
    chat.expect("error: cannot open")
    chat.send(f"/load {tmp_path}/talk.json\n")
    chat.expect("Loaded 3 messages")
    chat.expect("> ")
    assert chat.leave() == 0
    messages = json.loads((tmp_path / "talk.json").read_text())["messages"]
    assert [m["role"] for m in messages] == ["system", "user", "assistant"]
    assert messages[0]["content"] == "Be brief." and messages[1]["content"] == "hello" and messages[2]["content"] == "AAAAA"
    assert "hello" in (cache / "chat_history").read_text()


def test_history_comes_back_with_the_arrow(hadal, chatty):
    for round in range(2):
        chat = Terminal(hadal, chatty, "--max-tokens", 3, *GREEDY, *ALWAYS_A)
        chat.expect("> ")
        chat.send("unmistakable\n" if round == 0 else "\x1b[A\x1b[A")  # behind /exit
        chat.expect("unmistakable")
        if round == 1:
            chat.send("\n")
        chat.expect("AAA")
        chat.send("/exit\n")
        assert chat.ends() == 0


def test_a_line_can_be_edited(hadal, chatty, tmp_path):
    chat = Terminal(hadal, chatty, "--max-tokens", 1, *GREEDY, *ALWAYS_A)
    chat.expect("> ")
    chat.send("wörld\x01hello \x05!x\x7f\n")  # start of line, end of line, backspace
    chat.expect("(cut")
    chat.send("one \\\n")
    chat.expect(". ")
    chat.send("two\n")
    chat.expect("(cut")
    chat.send(f"/save {tmp_path}/talk.json\n")
    chat.expect("Saved")
    chat.expect("> ")
    assert chat.leave() == 0
    assert [m["content"] for m in json.loads((tmp_path / "talk.json").read_text())["messages"]] == ["hello wörld!", "A", "one \ntwo", "A"]


def test_ctrl_c_stops_the_reply_and_not_the_program(hadal, chatty):
    chat = Terminal(hadal, chatty, *GREEDY, *ALWAYS_A)
    chat.expect("> ")
    for _ in range(2):
        chat.send("go on\n")
        chat.expect("AAAAAAAA")
        chat.send("\x03")
        chat.expect("(stopped)")
        chat.expect("> ")
    chat.press("half a line\x03", "Ctrl-D leaves.")
    chat.expect("> ")
    assert chat.leave() == 0


def test_a_full_context_is_said(hadal, chatty):
    chat = Terminal(hadal, chatty, "--context", 64, *GREEDY, *ALWAYS_A)
    chat.expect("context of 64 tokens")
    chat.send("go\n")
    chat.expect("(cut: the context of 64 tokens is full; /reset starts anew)")
    chat.send("more\n")
    chat.expect("The context is full: the talk takes ")
    chat.expect("/reset starts anew")
    chat.send("/reset\n")
    chat.expect("The talk starts anew.")
    chat.send("x\n")
    chat.expect("AAAA")
    chat.expect("> ")
    assert chat.leave() == 0


def test_a_full_context_forgets_the_oldest_part(hadal, chatty):
    chat = Terminal(hadal, chatty, "--context", 192, "--max-tokens", 300, *GREEDY, *ALWAYS_A)
    for _ in range(2):
        chat.send("go\n")
        chat.expect("(the context of 192 tokens is full: the oldest part of the talk is forgotten)")
    chat.send("/stats\n")
    chat.expect("300 tokens")
    chat.expect("context: 192 of 192 tokens")
    assert chat.leave() == 0


def test_thinking_is_dimmed(hadal, llama, tmp_path):
    chat = Terminal(hadal, copy_of(tmp_path / "model", llama.model, TEMPLATE + "<think>\n"), "--max-tokens", 3, *GREEDY, *ALWAYS_A)
    chat.expect("> ")
    chat.send("x\n")
    chat.expect("\x1b[2mAAA\x1b[0m")
    chat.expect("> ")
    assert chat.leave() == 0


def test_a_talk_through_a_pipe(hadal, chatty):
    arguments = [hadal.program, "chat", chatty, "--max-tokens", 2, *GREEDY, *ALWAYS_A]
    done = subprocess.run(list(map(str, arguments)), input="one\n\ntwo\n", capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout == "AA\nAA\n"


def test_a_base_model_cannot_chat(hadal, llama):
    hadal.fails(1, "has no chat template", "chat", llama.model)


def test_the_default_model_is_named_when_it_is_not_there(hadal):
    hadal.fails(1, "the model smollm2 is not installed", "chat")
