"""A process for each backend: boot.py and server.py run in it, client.py in the user's program, protocol.py in both."""
