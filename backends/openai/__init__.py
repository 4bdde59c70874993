"""Inference by an OpenAI-compatible upstream: vLLM, SGLang, llama.cpp's server, TGI, Ollama, OpenAI itself."""
