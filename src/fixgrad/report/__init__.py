"""What people read: tables and files about a run."""
