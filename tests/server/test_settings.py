"""Settings: where values come from, and what is said about wrong ones."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from server.cli_config import effective
from server.redaction import HIDDEN
from server.settings import Settings, load_settings
from server.settings_file import InvalidSettings


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("ONNXSTACK_"):
            monkeypatch.delenv(name)


def load(tmp_path: Path, text: str, **overrides: object) -> Settings:
    file = tmp_path / "stack.yaml"
    file.write_text(text)
    return load_settings(file, environ=os.environ, overrides=overrides)


def problems(tmp_path: Path, text: str = "") -> list[str]:
    with pytest.raises(InvalidSettings) as refused:
        load(tmp_path, text)
    return [problem.replace(f"{tmp_path}/", "") for problem in refused.value.problems]


def test_everything_has_a_default() -> None:
    settings = load_settings(environ=os.environ)
    assert (settings.server.host, settings.server.port, settings.server.workers) == ("127.0.0.1", 8321, 1)
    settings.check_exposure()


def test_the_environment_is_above_the_file_and_the_command_line_above_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "server: {port: 1111, workers: 2}\nengine: {slots: 3}\n"
    assert load(tmp_path, text).server.port == 1111
    monkeypatch.setenv("ONNXSTACK_SERVER__PORT", "2222")
    settings = load(tmp_path, text)
    assert (settings.server.port, settings.server.workers, settings.engine.slots) == (2222, 2, 3)
    assert load(tmp_path, text, server={"port": 3333}).server.port == 3333


def test_the_file_may_be_named_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "named.yaml").write_text("isolation: shared\nserver: {port: 4444}\n")
    monkeypatch.setenv("ONNXSTACK_CONFIG", str(tmp_path / "named.yaml"))
    assert load_settings(environ=os.environ).server.port == 4444


def test_references_to_variables_are_replaced_and_an_empty_variable_takes_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = """
server: {port: '${env.A_PORT:=5555}'}
database_url: 'postgresql://${env.A_HOST:=db}/x'
vector_url: '${env.NONE:=}'
"""
    settings = load(tmp_path, text)
    assert (settings.server.port, settings.database_url, settings.vector_url) == (5555, "postgresql://db/x", "")
    monkeypatch.setenv("A_PORT", "6666")
    monkeypatch.setenv("A_HOST", "")
    settings = load(tmp_path, text)
    assert (settings.server.port, settings.database_url) == (6666, "postgresql://db/x")


def test_a_variable_that_is_not_set_and_has_no_default_is_named_with_its_place(tmp_path: Path) -> None:
    assert problems(tmp_path, "server:\n  port: ${env.MISSING_PORT}\n") == [
        "stack.yaml:2: server.port: the environment variable MISSING_PORT is not set; set it or write"
        " ${env.MISSING_PORT:=default}"
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sever: {}\n", "stack.yaml:1: sever: unknown setting; did you mean server?"),
        ("server:\n  hosst: a\n", "stack.yaml:2: server.hosst: unknown setting; did you mean host?"),
        (
            "auth:\n  keys:\n    - {name: a, key: abcdefgh1}\n    - name: b\n      sha: x\n",
            "stack.yaml:5: auth.keys[1].sha: unknown setting; did you mean sha256?",
        ),
        ("engine:\n  slots: many\n", "stack.yaml:2: engine.slots: Input should be a valid integer"),
        ("server:\n  port: 1\n  port: 2\n", "stack.yaml:3: server.port: is given twice"),
        ("- a\n", "stack.yaml: must be a mapping of settings"),
        ("a: [\n", "stack.yaml: is not YAML"),
        ("isolation: per_key\n", "isolation: per_key needs keys in auth.keys"),
        (
            "database_url: memory://\nserver: {workers: 2}\n",
            "server.workers: 2 workers share no memory; set server.workers: 1, or a database_url other than memory://",
        ),
        (
            "server: {workers: 3}\nproviders: [{api: vector_io, provider_id: v, provider_type: 'inline::memory'}]\n",
            "server.workers: 3 workers share no memory; set server.workers: 1, or a provider_type other than",
        ),
        ("cors: {origins: ['*'], credentials: true}\n", "stack.yaml:1: cors: `credentials` cannot be used"),
        ("auth: {keys: [{name: a}]}\n", "stack.yaml:1: auth.keys[0]: give either `sha256` or `key`"),
    ],
)
def test_a_wrong_setting_is_refused_with_its_place_and_what_would_be_right(
    tmp_path: Path, text: str, expected: str
) -> None:
    assert any(problem.startswith(expected) for problem in problems(tmp_path, text)), problems(tmp_path, text)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("ONNXSTACK_SERVR__PORT", "1", "ONNXSTACK_SERVR__PORT: unknown setting; did you mean ONNXSTACK_SERVER?"),
        ("ONNXSTACK_SERVER__PRT", "1", "server.prt: unknown setting; did you mean port?"),
        ("ONNXSTACK_SERVER__PORT", "x", "ONNXSTACK_SERVER__PORT: server.port: Input should be a valid integer"),
        ("ONNXSTACK_PROVIDERS", "not json", "environment: error parsing value"),
    ],
)
def test_a_wrong_variable_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, expected: str
) -> None:
    monkeypatch.setenv(name, value)
    assert any(expected in problem for problem in problems(tmp_path)), problems(tmp_path)


def test_variables_that_kubernetes_adds_for_a_service_of_our_name_are_no_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ONNXSTACK_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("ONNXSTACK_PORT", "tcp://10.0.0.1:80")
    monkeypatch.setenv("ONNXSTACK_PORT_80_TCP_ADDR", "10.0.0.1")
    assert load_settings(environ=os.environ).server.port == 8321


@pytest.mark.parametrize(
    ("host", "public"),
    [
        ("127.0.0.1", False),
        ("::1", False),
        ("localhost", False),
        ("0.0.0.0", True),
        ("::", True),
        ("192.168.1.5", True),
        ("gpu-box", True),
    ],
)
def test_a_public_address_needs_a_key_or_an_explicit_word(tmp_path: Path, host: str, public: bool) -> None:
    settings = load(tmp_path, f"server: {{host: '{host}'}}\n")
    if public:
        with pytest.raises(InvalidSettings, match=r"allow_unauthenticated_public_bind"):
            settings.check_exposure()
    else:
        settings.check_exposure()
    load(tmp_path, f"server: {{host: '{host}'}}\nauth: {{keys: [{{name: a, key: abcdefgh1}}]}}\n").check_exposure()
    load(tmp_path, f"server: {{host: '{host}'}}\nauth: {{allow_unauthenticated_public_bind: true}}\n").check_exposure()


@pytest.mark.parametrize("hosts", [["0.0.0.0"], ["127.0.0.1", "::"], [""], ["gpu-box"]])
def test_where_it_will_really_listen_counts(tmp_path: Path, hosts: list[str]) -> None:
    settings = load(tmp_path, "server: {host: 127.0.0.1}\n")
    with pytest.raises(InvalidSettings, match=r"allow_unauthenticated_public_bind"):
        settings.check_exposure(hosts)
    load(tmp_path, "server: {host: 0.0.0.0}\n").check_exposure(["127.0.0.1", "::1"])


@pytest.mark.parametrize(
    "text",
    [
        "database_url: memory://\n",
        "server: {workers: 2}\nproviders: [{api: inference, provider_id: m, provider_type: 'inline::memory'}]\n",
    ],
)
def test_memory_is_fine_where_one_process_or_nothing_is_kept(tmp_path: Path, text: str) -> None:
    load(tmp_path, text)


def test_a_key_is_known_by_its_hash_and_belongs_to_its_name(tmp_path: Path) -> None:
    hashed = hashlib.sha256(b"second-secret").hexdigest().upper()
    text = f"auth:\n  keys:\n    - {{name: alice, key: first-secret}}\n    - {{name: bob, sha256: {hashed}}}\n"
    auth = load(tmp_path, text).auth
    assert auth.digests() == {hashlib.sha256(b"first-secret").hexdigest(): "alice", hashed.lower(): "bob"}


def test_the_effective_settings_hide_every_secret(tmp_path: Path) -> None:
    text = """
auth: {keys: [{name: alice, key: canary-key-1}]}
database_url: postgresql://user:canary-password@db/x
providers:
  - {api: inference, provider_id: r, provider_type: "remote::openai", config: {api_key: canary-key-2, url: "http://x"}}
"""
    settings = load(tmp_path, text)
    shown = effective(settings)
    assert "canary" not in str(shown) + repr(settings.auth)
    assert shown["auth"]["keys"][0] == {"name": "alice", "sha256": None, "key": HIDDEN}
    assert shown["database_url"] == f"postgresql://user:{HIDDEN}@db/x"
    assert shown["providers"][0]["config"] == {"api_key": HIDDEN, "url": "http://x"}


def test_an_error_about_a_secret_does_not_show_it(tmp_path: Path) -> None:
    assert "canary" not in str(problems(tmp_path, "auth: {keys: [{name: a, sha256: canary}]}\n"))
