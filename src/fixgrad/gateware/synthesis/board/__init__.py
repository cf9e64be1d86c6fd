"""A board around a machine: SDRAM controller, a host behind a serial line, clock and pins."""
