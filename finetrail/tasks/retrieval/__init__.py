"""Documents for a query: a bi-encoder that gives both a vector, and a search among the documents' vectors."""
