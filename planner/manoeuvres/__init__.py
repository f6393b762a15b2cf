"""What an ego is up to, and the laws that carry it out."""
