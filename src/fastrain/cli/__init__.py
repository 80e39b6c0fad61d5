"""The command line: one program, a verb per stage. Results go to standard output, the rest to standard error."""
