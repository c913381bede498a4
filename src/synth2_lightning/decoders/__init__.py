"""Visual tokens become words."""
