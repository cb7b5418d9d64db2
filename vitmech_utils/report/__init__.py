"""What readers see of a run: the head picker, the judged claims, and the templates of both."""
