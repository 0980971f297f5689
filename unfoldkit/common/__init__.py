"""What both halves and the commands share: whole files, the console, long runs, reports."""
