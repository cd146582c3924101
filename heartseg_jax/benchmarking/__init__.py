"""What a network costs on this machine, measured: time, FLOPs, memory, compilation, input. For the verb `benchmark`."""
