"""The commands of ``analysis``, one function each. Heavy modules are imported inside them, so that --help is quick."""
