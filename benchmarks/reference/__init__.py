"""The reference Llama Stack server as a peer: its own environment, llama.cpp behind it, the weights that we serve."""
