"""What a program computes and costs on a machine: bounds, functional and timing simulation, DRAM."""
