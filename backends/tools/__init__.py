"""Running tools: MCP servers, web search, Wolfram Alpha, and what their calls are checked for."""
