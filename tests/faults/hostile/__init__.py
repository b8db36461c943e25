"""Files made to do harm, and the message that each must get; read in a process of its own."""
