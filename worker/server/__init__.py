"""vLLM's API server process: plugin, routes, and what is hooked into vLLM's command line."""
