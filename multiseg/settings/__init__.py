"""What a job can specify: losses, metrics, solvers, schedules, initialisation."""
