"""A guestbook that stands in for a user's app, and a tour that shows it losing its machine."""
