"""vLLM, in this process: any model that it serves, behind the engine protocol."""
