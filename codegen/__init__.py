"""From `openapi.yaml` and the overlays to `generated/`. A build tool: the running server never imports it."""
