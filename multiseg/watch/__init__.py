"""Watch trainings: one page of several runs that shows their state as it is in their folders."""
