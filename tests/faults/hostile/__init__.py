"""Files made to do harm, and what must be said of each; read in a process of its own by the hostile drills."""
