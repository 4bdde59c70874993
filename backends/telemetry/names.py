"""Names of attributes that our spans carry, in one place.

`GEN_AI_*`: the OpenTelemetry semantic conventions for generative AI, https://opentelemetry.io/docs/specs/semconv/gen-ai/,
`HTTP_*` and `ERROR_TYPE`: those for HTTP. They are written out here because the package that ships the first calls them
incubating. Names with underscores around them are those of the Llama Stack reference server, which notebooks filter by.
"""

from __future__ import annotations

from typing import Final

GEN_AI_OPERATION_NAME: Final = "gen_ai.operation.name"
GEN_AI_PROVIDER_NAME: Final = "gen_ai.provider.name"
GEN_AI_REQUEST_MODEL: Final = "gen_ai.request.model"
GEN_AI_REQUEST_MAX_TOKENS: Final = "gen_ai.request.max_tokens"
GEN_AI_REQUEST_TEMPERATURE: Final = "gen_ai.request.temperature"
GEN_AI_REQUEST_TOP_P: Final = "gen_ai.request.top_p"
GEN_AI_REQUEST_TOP_K: Final = "gen_ai.request.top_k"
GEN_AI_RESPONSE_FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
GEN_AI_USAGE_INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
GEN_AI_USAGE_OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
GEN_AI_USAGE_CACHED_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
GEN_AI_INPUT_MESSAGES: Final = "gen_ai.input.messages"
GEN_AI_OUTPUT_MESSAGES: Final = "gen_ai.output.messages"
CHAT: Final = "chat"
TEXT_COMPLETION: Final = "text_completion"
EMBEDDINGS: Final = "embeddings"

HTTP_METHOD: Final = "http.request.method"
HTTP_ROUTE: Final = "http.route"
HTTP_STATUS: Final = "http.response.status_code"
ERROR_TYPE: Final = "error.type"

ROOT: Final = "__root__"
LOCATION: Final = "__location__"
SERVER: Final = "server"
REQUEST_ID: Final = "request_id"
OPERATION: Final = "onnxstack.operation"
OWNER: Final = "onnxstack.owner"
JOB_ID: Final = "onnxstack.job.id"
JOB_SUBJECT: Final = "onnxstack.job.subject"
JOB_ATTEMPT: Final = "onnxstack.job.attempt"
EMBEDDED_TEXTS: Final = "onnxstack.embedded_texts"

# Spans of agents and what they carry, as the reference server calls them.
TURN: Final = "create_and_execute_turn"
SHIELDS: Final = "run_shields"
INFERENCE: Final = "inference"
TOOL_EXECUTION: Final = "tool_execution"
QUERY_FROM_MEMORY: Final = "query_from_memory"
AGENT_ID: Final = "agent_id"
SESSION_ID: Final = "session_id"
TURN_ID: Final = "turn_id"
REQUEST: Final = "request"
INPUT: Final = "input"
OUTPUT: Final = "output"
STOP_REASON: Final = "stop_reason"
TOOL_NAME: Final = "tool_name"
