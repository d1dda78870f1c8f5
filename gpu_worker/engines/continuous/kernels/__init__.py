"""What a step does on a CPU, in C: compiled once by the machine's own compiler, and called on torch's tensors.

torch's own operators do not reach what the memory and the cores give for a few dozen rows. Where there is no
compiler, or another processor than these were measured on, the engine runs on torch's operators alone.
"""
