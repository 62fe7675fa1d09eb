"""What a server, a proxy, a file or a page may send: nothing of it hangs, leaks or confuses."""
