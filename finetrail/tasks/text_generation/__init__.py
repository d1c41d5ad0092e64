"""The next token: continued texts, and completions of prompts."""
