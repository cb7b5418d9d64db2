"""What holds beyond one training: verdicts, orders, classes and heads of several trainings held side by side."""
