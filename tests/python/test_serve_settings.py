"""Settings of `hadal serve`: options, the environment and a file, in one order of precedence."""

import os
import subprocess

import pytest


def settings(hadal, *options, environment=(), expect=0):
    command = [hadal.program, "serve", *map(str, options), "--print-config"]
    done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ) | dict(environment), timeout=60)
    assert done.returncode == expect, done.stderr
    if expect:
        return done.stderr
    return dict(line.split(" = ", 1) for line in done.stdout.splitlines() if not line.startswith("#"))


def test_settings_have_one_precedence(hadal, tmp_path):
    file = tmp_path / "hadal.toml"
    file.write_text('# a comment\nport = 1111\nreplies = 3\ndrain = 5\nname = "from the file"\nallow-origin = ["https://a.example", "https://b.example"]\nlog-content = true\n')
    read = settings(hadal, "--config", file)
    assert (read["port"], read["replies"], read["name"]) == ("1111", "3", '"from the file"')
    assert read["allow-origin"] == '["https://a.example", "https://b.example"]' and read["log-content"] == "true"
    assert read["most-requests"] == "256", "the default"
    environment = {"HADAL_SERVE_PORT": "2222", "HADAL_SERVE_REPLIES": "4"}
    read = settings(hadal, "--config", file, environment=environment)
    assert (read["port"], read["replies"], read["drain"]) == ("2222", "4", "5")
    read = settings(hadal, "--config", file, "--port", 3333, environment=environment)
    assert (read["port"], read["replies"], read["drain"]) == ("3333", "4", "5")
    assert settings(hadal, environment={"HADAL_SERVE_CONFIG": str(file)})["port"] == "1111"
    file.write_text("[serve]\nport = 1112\n")
    assert settings(hadal, "--config", file)["port"] == "1112"


def test_what_is_printed_can_be_read(hadal, tmp_path):
    options = ["some/model", "--port", 77, "--stop", "a", "--stop", "b", "--temperature", "0.5", "--weights", "w4", "--log-content"]
    first, file = hadal.run("serve", *options, "--print-config").stdout, tmp_path / "hadal.toml"
    file.write_text(first)
    second = hadal.run("serve", "--config", file, "--print-config").stdout
    file.write_text(second)
    assert hadal.run("serve", "--config", file, "--print-config").stdout == second
    written = lambda text: {line for line in text.splitlines() if "bytes" not in line}  # 10GB and 10000000000 are the same
    assert written(first) == written(second)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("prot = 1\n", "there is no setting 'prot'"),
        ("[other]\nport = 1\n", "found [other]"),
        ("port = 99999\n", "port"),
        ("port = many\n", "port"),
        ("weights = w5\n", "weights"),
        ("config = x\n", "there is no setting 'config'"),
    ],
)
def test_a_wrong_setting_is_named(hadal, tmp_path, text, said):
    file = tmp_path / "hadal.toml"
    file.write_text(text)
    problem = settings(hadal, "--config", file, expect=1)
    assert said in problem and str(file) in problem


def test_other_wrong_settings(hadal, tmp_path):
    assert "there is no setting HADAL_SERVE_PROT" in settings(hadal, environment={"HADAL_SERVE_PROT": "1"}, expect=1)
    assert "cannot read" in settings(hadal, "--config", tmp_path / "none", expect=1)
    assert "port" in settings(hadal, environment={"HADAL_SERVE_PORT": "x"}, expect=2)
