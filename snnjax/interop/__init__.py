"""Networks from and to other libraries, a library a file."""
