"""Opens exported folders of all tasks with the tools that people use, and compares what the tools answer."""
