"""The command line: one program, a verb per stage. Numbers for programs on standard output, the rest on standard error."""
