"""What happens in the viewer: opening, restoring, looking, taking away."""
