"""The machine in Amaranth: AXI, control, units, arithmetic; Verilog of it, and its simulation."""
