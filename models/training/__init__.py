"""Learning latent layers and measuring what they find; not needed to run a bundle."""
