"""Code that both databases share: connections, retries, errors, URLs, query texts and the rule for claims."""
