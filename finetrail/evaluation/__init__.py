"""What all tasks share in evaluation."""
