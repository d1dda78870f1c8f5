"""What a step does on a CPU, in C: compiled once by the machine's own compiler, and called on torch's tensors.

torch's own operators reach two thirds of what this memory and these cores give for 8 to 48 rows. Where there is no
compiler, or another processor than these were measured on, the engine runs on torch's operators alone.
"""
