"""What inspect tells of where a provider computes."""

from __future__ import annotations

from pathlib import Path

import pytest

from backends.config import BackendSettings, EngineSettings, ProviderSettings
from backends.context import CallContext
from backends.stack import open_backends
from handlers import inspect
from handlers.call import Call


@pytest.mark.parametrize(("device", "told"), [("cpu", "cpu: asked for"), ("auto", "cpu: onnxruntime-gpu is not")])
def test_the_onnx_provider_tells_its_device_and_why(tmp_path: Path, device: str, told: str) -> None:
    settings = BackendSettings(
        data_dir=tmp_path,
        engine=EngineSettings.model_validate({"device": device}),
        providers=(ProviderSettings(api="inference", provider_id="onnx", provider_type="inline::onnx"),),
    )
    backends = open_backends(settings)
    try:
        [provider] = inspect.list_providers(Call(CallContext(request_id="test"), backends)).data
    finally:
        backends.close()
    assert provider.device is not None and provider.device.startswith(told)
