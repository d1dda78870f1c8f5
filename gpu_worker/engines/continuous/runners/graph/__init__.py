"""The runner for CUDA: steps of few fixed shapes, so that each can be recorded once and launched as one graph."""
