"""What judges a response: verifiers of its words, reward models, judges."""
