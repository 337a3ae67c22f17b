"""How is it answered? The model, the engine around it, and the HTTP service on Ray Serve."""
