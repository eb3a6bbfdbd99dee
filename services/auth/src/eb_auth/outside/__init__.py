"""What auth talks to outside of the platform: mail servers and sign-in providers."""
