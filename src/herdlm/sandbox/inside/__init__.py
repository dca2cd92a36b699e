"""What runs inside the sandbox, below the processes of a program: standard library only, no other file of herdlm."""
