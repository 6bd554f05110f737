"""The action server, its wire protocols, its client and the web demo."""
