"""How the sandbox is told what to do, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from hub.sandbox.__main__ import read_arguments
from hub.sandbox.config import DEMO_ACCOUNT, SandboxConfig
from hub.sandbox.personas import PERSONAS, stranger
from hub.sandbox.server import main
from hub.settings import Secret


def test_settings_of_the_hub_are_enough(tmp_path: Path) -> None:
    settings = SimpleNamespace(
        sandbox_port=0,
        data_dir=tmp_path,
        host="0.0.0.0",
        port=8081,
        sandbox_callback=None,
        meta_app_secret=Secret("app-secret"),
        meta_verify_token=Secret("verify-token"),
    )
    config = SandboxConfig.from_settings(settings)
    assert config.callback_url == "http://127.0.0.1:8081/functions/v1/whatsapp-cloud-webhook"
    assert (config.app_secret, f"{config.verify_token}") == ("app-secret", "verify-token")
    assert config.host == "127.0.0.1"
    assert config.folder == tmp_path / "sandbox"


def test_absent_settings_leave_the_defaults() -> None:
    assert SandboxConfig.from_settings(SimpleNamespace()) == SandboxConfig()


def test_arguments_win_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "sandbox.json"
    file.write_text(
        json.dumps({"port": 1, "batch_max": 3, "accounts": [{"phone_number_id": "7", "waba_id": "8"}]})
    )
    config = read_arguments(["--config", str(file), "--port", "2"])
    assert (config.port, config.batch_max, config.accounts[0].phone_number_id) == (2, 3, "7")


@pytest.mark.parametrize("text", ["{", "[]", '{"prot":1}', '{"port":"x"}', '{"personas":[{"id":"x"}]}'])
def test_a_bad_file_ends_the_start_with_a_reason(
    tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "sandbox.json"
    file.write_text(text)
    with pytest.raises(SystemExit):
        read_arguments(["--config", str(file)])
    assert "error:" in capsys.readouterr().err


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "example.com"])
def test_it_binds_loopback_only(host: str, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="not loopback"):
        main(SandboxConfig(host=host, data_dir=str(tmp_path)))


def test_the_document_names_the_demos_people_and_account() -> None:
    text = (Path(__file__).parents[2] / "docs" / "sandbox.md").read_text()
    for persona in PERSONAS:
        assert f"`{persona.id}` | {persona.name} |" in text
        assert persona.phone is None or persona.phone in text
    assert DEMO_ACCOUNT.phone_number_id in text
    assert DEMO_ACCOUNT.access_token in text


def test_strangers_are_always_the_same_person() -> None:
    assert stranger("201005550000") == stranger("201005550000")
    assert stranger("EG.31415") is not None
    assert stranger("nobody") is None
    assert stranger("٢٠١٠٠٥٥٥٠٠٠٠") is None
