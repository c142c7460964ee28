"""What is known of libraries that a fork breaks: tables, one row a library."""
