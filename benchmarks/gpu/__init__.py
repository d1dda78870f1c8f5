"""What is to be known of the engine on a GPU, measured in one call: `make bench-gpu`.

Each stage is a process of its own with a time limit, so that one that fails or hangs costs the others nothing. The same
stages run on a CPU with tiny shapes, which proves nothing about speed, and that no typo waits for the GPU.
"""
